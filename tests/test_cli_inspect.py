"""The verb `inspect`: text, JSON, the page, exit codes."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.cli import main
from keras_maskrcnn.data.doctor.findings import KINDS


@pytest.fixture
def shapes(tmp_path):
    """A COCO file of six images of shapes in `shapes/images`, as `write` gives it."""
    drawn, folder = data.Shapes(6, image_size=(96, 128)), tmp_path / "shapes"
    (folder / "images").mkdir(parents=True)
    content = {"info": {}, "licenses": [], "images": [], "annotations": []}
    content["categories"] = [{"id": label, "name": name} for label, name in enumerate(drawn.class_names, 1)]
    for number, sample in enumerate(drawn, 1):
        Image.fromarray(sample["image"]).save(folder / "images" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 128})
        for box, label in zip(sample["boxes"].tolist(), sample["labels"].tolist(), strict=True):
            x1, y1, x2, y2 = box
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            content["annotations"].append({
                "id": len(content["annotations"]) + 1,
                "image_id": number,
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": [[x1, y1, x, y1, x2, y, x2, y2, x, y2, x1, y]],
            })  # fmt: skip

    def write(**changes):
        (folder / "all.json").write_text(json.dumps({**content, **changes}))
        return folder

    write.content = content
    return write


def test_a_page_and_json_are_written(shapes, tmp_path, capsys):
    page, numbers = tmp_path / "out" / "page.html", tmp_path / "out" / "numbers.json"
    assert main(["inspect", str(shapes()), "--html", str(page), "--json", str(numbers), "--drawn", "4"]) == 0
    printed = capsys.readouterr()
    assert "all: 6 images" in printed.out and "verdict: fine" in printed.out and printed.err == ""
    found = json.loads(numbers.read_text())
    assert found["sets"]["all"]["images"] == 6 and found["exit_code"] == 0
    assert len(found["anchors"]["proposed"]["sizes"]) == 5
    default, proposed = (found["anchors"]["reached"]["all"][kind] for kind in ("default", "proposed"))
    assert 0 <= default[1] <= default[0] <= 1 and 0 <= proposed[1] <= proposed[0] <= 1
    text = page.read_text(encoding="utf-8")
    assert "http" not in re.sub(r'data:image/[^"]+', "", text)  # no other file, no network
    assert len(re.findall("data:image/svg", text)) >= 3 and len(re.findall("data:image/jpeg", text)) == 1
    assert "cannot be seen in the files" in text and "<script" not in text


def test_errors_are_in_the_page_and_the_exit_code(shapes, tmp_path, capsys):
    annotations = [dict(annotation) for annotation in shapes.content["annotations"]]
    annotations[0]["bbox"] = [0, 0, 0, 5]
    page = tmp_path / "page.html"
    assert main(["inspect", str(shapes(annotations=annotations)), "--html", str(page), "--examples", "1"]) == 1
    printed = capsys.readouterr().out
    assert "error: boxes or polygons without width or height (1) [degenerate]" in printed
    assert "verdict: repair first: 2 kinds of error" in printed
    text = page.read_text(encoding="utf-8")
    assert "Images with the heaviest findings" in text and "annotation 1: 0, 5 pixels wide and high" in text


def test_names_in_files_cannot_write_into_the_page(shapes, tmp_path):
    categories = [{"id": 1, "name": "<b>x</b>"}, {"id": 2, "name": "a"}, {"id": 3, "name": "b"}]
    annotations = [a for a in shapes.content["annotations"] if a["category_id"] != 1]
    page = tmp_path / "page.html"
    main(["inspect", str(shapes(categories=categories, annotations=annotations)), "--html", str(page)])
    assert "<b>x" not in page.read_text(encoding="utf-8")


def test_what_cannot_be_read_has_exit_code_2(shapes, tmp_path, capsys):
    folder = shapes()
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    (folder / "images" / "3.png").write_bytes(b"broken")
    assert main(["inspect", str(folder)]) == 2
    assert re.search(
        r"error: images or masks that cannot be read \(1\).*\n.*3\.png: cannot be read", capsys.readouterr().out
    )
    assert main(["inspect", str(folder), "--fix", str(tmp_path / "out.txt")]) == 2
    assert "is not a .json file" in capsys.readouterr().err


def test_fix_writes_a_file_that_reads_without_errors(shapes, tmp_path, capsys):
    folder, output = shapes(), tmp_path / "fixed.json"
    (folder / "images" / "3.png").write_bytes(b"broken")
    assert main(["inspect", str(folder), "--fix", str(output)]) == 2
    assert f"{output}: images are relative to {folder / 'images'}; 1 change in" in capsys.readouterr().out
    assert len(data.Coco(output, folder / "images")) == 5
    assert main(["inspect", str(folder), "--fix", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_larger_canvases_move_objects_to_other_anchors(shapes, tmp_path):
    reached = []
    for size in ("96 128", "384 512"):
        numbers = tmp_path / f"{size}.json"
        main(["inspect", str(shapes()), "--json", str(numbers), "--image-size", *size.split()])
        reached.append(json.loads(numbers.read_text())["anchors"]["reached"]["all"]["default"])
    assert reached[0] != reached[1]


def test_inspection_needs_no_keras(shapes):
    code = "import sys; from keras_maskrcnn.cli import main; main(sys.argv[1:]); sys.exit('keras' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code, "inspect", str(shapes())], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_a_file_whose_images_lie_elsewhere(shapes, tmp_path, capsys):
    (shapes() / "all.json").rename(tmp_path / "moved.json")
    assert main(["inspect", str(tmp_path / "moved.json")]) == 2
    assert f"no image of all is in {tmp_path}: name their folder by --images FOLDER" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "moved.json"), "--images", str(tmp_path / "shapes/images")]) == 0


def test_a_set_without_objects_is_inspected(shapes, tmp_path):
    page = tmp_path / "page.html"
    assert main(["inspect", str(shapes(annotations=[])), "--html", str(page)]) == 1
    assert "mostly-empty" in page.read_text(encoding="utf-8")


def test_the_page_of_the_documentation_lists_every_kind():
    text = (pathlib.Path(__file__).parents[1] / "docs" / "inspect.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \|", text, re.M)
    assert sorted(rows) == sorted((kind.code, kind.level) for kind in KINDS.values())


def test_annotations_that_are_left_out_are_printed_once(shapes, capsys, caplog):
    path = shapes(annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": [1]}])
    assert main(["inspect", str(path)]) == 1
    assert capsys.readouterr().out.count("its mask is neither polygons nor run lengths") == 1
    assert not caplog.text
    assert not data.open(path)[0]["labels"].size and "1 annotation left out" in caplog.text
