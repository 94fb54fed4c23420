"""docs/your_data.md: exports of annotation tools open as they are, and `inspect` finds what goes wrong with them."""

import importlib.util
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import cli, data
from keras_maskrcnn.data import coco_file, kept

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


tools = _module(ROOT / "tests" / "annotation_tools.py")
HALVES = (("Train", range(4)), ("Validation", range(4, 6)))
SERVER = "../../label-studio/media/upload/4/{}"


def _two_of_via(folder):
    for part, positions in (("train", range(3)), ("val", range(3, 6))):
        tools.via(folder / part, f"{part}_json.json", positions)


# Name, function that writes the export, and the numbers of training and validation images.
OPENED = {
    **{name: (write, 5, 1) for name, write in tools.EXPORTS.items()},
    "via, matterport's name": (lambda folder: tools.via(folder, "via_region_data.json"), 5, 1),
    "via, two sets": (_two_of_via, 3, 3),
    "cvat, subsets": (lambda folder: tools.cvat(folder, HALVES), 4, 2),
    "cvat, subsets, older": (lambda folder: tools.cvat(folder, HALVES, merged=True), 4, 2),
    "cvat, older": (lambda folder: tools.cvat(folder, merged=True), 5, 1),
    "cvat, YOLO": (tools.cvat_yolo, 5, 1),
    "label_studio, Windows": (lambda folder: tools.label_studio(folder, "images\\{}"), 5, 1),
    "label_studio, Windows, older": (lambda folder: tools.label_studio(folder, "images\\1/{}"), 5, 1),
    "label_studio, server": (lambda folder: tools.label_studio(folder, SERVER), 5, 1),
    "label_studio, server on Windows": (lambda folder: tools.label_studio(folder, SERVER.replace("/", "\\")), 5, 1),
    "label_studio, YOLO": (tools.label_studio_yolo, 5, 1),
    "roboflow": (tools.roboflow, 4, 1),
    "roboflow, YOLO": (tools.roboflow_yolo, 4, 2),
    "yolo": (tools.yolo, 4, 2),
    "own": (tools.own, 4, 2),
}


@pytest.mark.parametrize("name", OPENED)
def test_an_export_opens_as_it_is(tmp_path, name):
    write, *counts = OPENED[name]
    write(tmp_path)
    train, val = data.splits(tmp_path)
    assert [len(train), len(val)] == counts
    expected = tools.drawn()
    for sample in (*train, *val):
        position = int(re.search(r"photo(\d)", sample["source"]).group(1))
        np.testing.assert_array_equal(sample["masks"], expected[position]["masks"])
        label = tools.CLASSES[expected[position]["labels"][0] - 1]
        assert [train.class_names[number - 1] for number in sample["labels"]] == [label]
    report = data.inspect(tmp_path)
    assert not report.closed and "error" not in {kind.level for kind in report.findings.kinds()}


def test_the_only_file_of_label_studio_opens_too(tmp_path):
    tools.label_studio(tmp_path, SERVER)
    assert len(data.open(tmp_path / "result.json")) == len(data.open(tmp_path)) == tools.COUNT


def test_a_kept_index_finds_images_by_name_too(tmp_path, monkeypatch):
    """The second opening of a large file does not read it."""
    monkeypatch.setenv("KMR_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(kept, "MIN_BYTES", 0)
    tools.label_studio(tmp_path / "mine", SERVER)
    first = data.open(tmp_path / "mine")
    monkeypatch.setattr(coco_file, "_scanned", lambda *arguments: pytest.fail("the file was read again"))
    second = data.open(tmp_path / "mine")
    assert [sample["source"] for sample in second] == [sample["source"] for sample in first]
    assert first[0]["source"] == str(tmp_path / "mine" / "images" / "ab12cd30-photo0.png")


def test_images_are_found_by_name_beside_a_faulty_record(tmp_path):
    tools.label_studio(tmp_path, SERVER)
    _no_size(tmp_path)
    with pytest.raises(data.DataError, match="the height None, not a number of pixels"):
        data.splits(tmp_path)
    report = data.inspect(tmp_path)
    assert report.statistics["all"]["images"] == tools.COUNT - 1 and not report.findings.of("unreadable")


def test_a_list_of_classes_that_is_no_text(tmp_path):
    tools.label_studio_yolo(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(data.DataError, match=r"classes\.txt: cannot be read"):
        data.open(tmp_path)


# What goes wrong ----------------------------------------------------------------------------------------------------


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _annotations(path, **values):
    """Sets values of all annotations of a COCO file."""
    _edit(path, lambda content: [annotation.update(values) for annotation in content["annotations"]])


def _regions(folder, change):
    _edit(folder / "via_export_json.json", lambda content: [change(e["regions"][0]) for e in content.values()])


def _via_point(folder):
    def change(region):
        if region["region_attributes"]["class"] == "circle":
            region["shape_attributes"] = {"name": "point", "cx": 3, "cy": 4}

    _regions(folder, change)


def _cvat_brush(folder):
    runs = {"counts": [0, 900, tools.SIDE**2 - 900], "size": [tools.SIDE, tools.SIDE]}
    _annotations(folder / "annotations" / "instances_default.json", iscrowd=1, segmentation=runs)


def _labelme_output(folder):
    (folder / "elsewhere").mkdir()
    for path in folder.glob("*.png"):
        path.rename(folder / "elsewhere" / path.name)


def _images_gone(folder):
    for path in (folder / "images").iterdir():
        path.unlink()


def _images_gone_on_the_server(folder):
    tools.label_studio(folder, SERVER)
    _images_gone(folder)


def _no_size(folder):
    _edit(folder / "result.json", lambda content: content["images"][0].update(height=None, width=None))


def _copied(folder):
    """A brighter copy of a training image among the validation images, as augmentation before the split makes it."""
    copy = Image.open(folder / "train" / "photo0_png.rf.0.png").point(lambda value: min(255, value + 12))
    copy.save(folder / "valid" / "photo4_png.rf.4.png")


def _foreground(folder):
    for path in (folder / "masks").glob("*/*.png"):
        Image.open(path).point(lambda value: 255 * value).save(path)


def _renamed_masks(folder):
    for path in (folder / "masks").glob("*/*.png"):
        path.rename(path.with_stem(f"{path.stem}_mask"))


def _boxes(folder):
    lines = "0 0.5 0.5 0.5 0.5\n" * 50
    (folder / "labels" / "train" / "photo0.txt").write_text(lines)


# Folder on the page, what is done to it, the kind that is found, and what its line says.
FAULTS = [
    ("via", lambda f: (f / "photo0.png").unlink(), "unreadable", "no such"),
    ("via", lambda f: _regions(f, lambda r: r.update(region_attributes={})), "no-class", ""),
    (
        "via",
        lambda f: _regions(f, lambda r: r["region_attributes"].update(ripe="yes")),
        "set",
        "choose one by attribute=",
    ),
    (
        "via",
        _via_point,
        "left-out",
        "its shape 'point' has no area",
    ),
    ("labelme", _labelme_output, "unreadable", "no such"),
    (
        "labelme",
        lambda f: _edit(f / "photo0.json", lambda content: content["shapes"][0].update(shape_type="mask")),
        "left-out",
        "its shape 'mask' has no area",
    ),
    (
        "labelme",
        lambda f: _edit(f / "photo0.json", lambda content: content["shapes"][0].update(label="Circle ")),
        "rare-class",
        "Circle ",
    ),
    ("cvat", _cvat_brush, "crowd", "crowd region"),
    ("cvat", _cvat_brush, "no-object-of-class", "circle"),
    ("cvat", lambda f: _annotations(f / "annotations" / "instances_default.json", segmentation=[]), "left-out", "mask"),
    ("label_studio", lambda f: _annotations(f / "result.json", segmentation=[]), "left-out", "mask"),
    ("label_studio", _images_gone, "unreadable", "no such"),
    ("label_studio", _images_gone_on_the_server, "set", "outside the folder of images"),
    ("label_studio", _no_size, "set", "None"),
    ("roboflow", lambda f: None, "no-object-of-class", "objects"),
    ("roboflow", _copied, "near-leak", ""),
    ("yolo", lambda f: (f / "labels" / "train" / "photo0.txt").unlink(), "no-label-file", ""),
    ("yolo", lambda f: (f / "images" / "train" / "photo0.png").unlink(), "no-image", ""),
    ("yolo", _boxes, "rectangles", "objects with sides of 16"),
    ("own", lambda f: (f / "images" / "photo0.png").rename(f / "images" / "photo0.PNG"), "unreadable", "rename one"),
    ("own", lambda f: _annotations(f / "train.json", image_id="1"), "set", "has the unknown image_id '1'"),
    ("mask_files", _foreground, "one-id", "has the id 255 only"),
    ("mask_files", _renamed_masks, "set", "has no image with a mask of the same name"),
    (
        "yolo",
        lambda f: (f / "labels" / "train" / "photo0.txt").write_text("7 0.1 0.1 0.9 0.1 0.9 0.9\n"),
        "left-out",
        "its class 7 is not among the 3 names",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}-{fault[2]}")
def test_inspect_finds_what_goes_wrong(tmp_path, fault):
    """The section of the tool names the kind."""
    name, change, code, text = fault
    tools.EXPORTS[name](tmp_path)
    change(tmp_path)
    found = data.inspect(tmp_path).findings.of(code)
    assert found and any(text in f"{finding.source} {finding.detail}" for finding in found), found
    section = re.search(rf"^## [^\n]*\n(?:(?!^## ).*\n)*?.*inspect {name}\b(?:(?!^## ).*\n)*", PAGE, re.M).group()
    assert f"`{code}`" in section or f"[{code}]" in section


# The page itself ----------------------------------------------------------------------------------------------------


def test_files_and_quick_commands_of_the_page(tmp_path, monkeypatch, capsys):
    """The listed files are those of the exports, and `inspect` runs on each; test_docs.py runs the other commands."""
    monkeypatch.chdir(tmp_path)
    tools.write_all(tmp_path)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)
    listed = [line.split()[0] for kind, text in blocks if kind == "text" for line in text.splitlines()]
    assert {path.split("/")[0] for path in listed} == {*tools.EXPORTS}
    for path in listed:
        assert (tmp_path / path).is_file(), path
    lines = [line.split() for kind, text in blocks if kind == "" for line in text.splitlines()]
    inspected = [words[3:] for words in lines if words[3:4] == ["inspect"]]
    assert {words[1] for words in inspected} == {*tools.EXPORTS, "mine"}
    for words in inspected:
        words = words[: words.index("--html")] if "--html" in words else words  # a page takes a second to draw
        assert cli.main(words) in (0, 1), words
    assert "Traceback" not in capsys.readouterr().err


def test_the_class_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tools.cells(tmp_path / "cells")
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    names = {}
    exec(compile(block, "docs/your_data.md", "exec"), names)
    assert len(names["train"]) == 5 and len(names["val"]) == 1
    sample = names["val"][0]
    assert sample["labels"].tolist() == [1] and sample["masks"].sum() > 100
    assert capsys.readouterr().out.strip()
