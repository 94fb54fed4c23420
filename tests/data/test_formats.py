"""`data.open` and `data.splits`: the format of a path is recognised, or each one says why it does not fit."""

import json
import types

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)


def coco(path, folder):
    photo(folder / "a.jpg")
    photo(folder / "b.jpg")
    images = [{"id": i, "file_name": f"{name}.jpg", "height": 40, "width": 60} for i, name in enumerate("ab")]
    box = {
        "id": 1,
        "image_id": 0,
        "category_id": 1,
        "bbox": [1, 1, 9, 9],
        "segmentation": [[1, 1, 10, 1, 10, 10, 1, 10]],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": [box], "categories": [{"id": 1, "name": "pear"}]}))


def via(folder):
    photo(folder / "a.jpg")
    square = {"name": "rect", "x": 1, "y": 1, "width": 9, "height": 9}
    entry = {"filename": "a.jpg", "regions": [{"shape_attributes": square, "region_attributes": {}}]}
    (folder / "via_region_data.json").write_text(json.dumps({"a.jpg": entry}))


def labelme(folder, name="a"):
    photo(folder / f"{name}.jpg")
    shape = {"label": "pear", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    (folder / f"{name}.json").write_text(json.dumps({"imagePath": f"{name}.jpg", "shapes": [shape]}))


def yolo(images, labels):
    photo(images / "a.jpg")
    labels.mkdir(parents=True, exist_ok=True)
    (labels / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5")


def layouts(root):
    """Each layout with a training and a validation set: name, path."""
    for part in ("train2017", "val2017"):
        coco(root / "coco" / "annotations" / f"instances_{part}.json", root / "coco" / part)
    for part in ("train", "valid"):
        coco(root / "roboflow" / part / "_annotations.coco.json", root / "roboflow" / part)
    for part in ("train", "val"):
        via(root / "via" / "balloon" / part)
        labelme(root / "labelme" / part)
        yolo(root / "yolo" / "images" / part, root / "yolo" / "labels" / part)
    for part in ("train", "valid"):
        yolo(root / "roboflow_yolo" / part / "images", root / "roboflow_yolo" / part / "labels")
    text = "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['pear']\n"
    (root / "roboflow_yolo" / "data.yaml").write_text(text)
    for version in ("instance_version", "material_version"):
        for part in ("train", "val"):
            coco(root / "trashcan" / version / f"instances_{part}_trashcan.json", root / "trashcan" / version / part)
    return ["coco", "roboflow", "via", "labelme", "yolo", "roboflow_yolo", "trashcan/instance_version"]


def test_layouts_with_two_sets(tmp_path):
    for name in layouts(tmp_path):
        train, val = data.splits(tmp_path / name)
        assert train.class_names == val.class_names and len(train) and len(val), name
        assert len(train[0]["labels"]) == 1, name
        with pytest.raises(data.DataError, match="choose one by split="):
            data.open(tmp_path / name)
        assert len(data.open(tmp_path / name, "train")) == len(train)
    assert data.splits(tmp_path / "roboflow_yolo" / "data.yaml")[0].class_names == ["pear"]


def test_trashcan_has_two_versions(tmp_path):
    layouts(tmp_path)
    with pytest.raises(data.DataError, match="open instance_version or material_version in it"):
        data.open(tmp_path / "trashcan")
    (tmp_path / "trashcan" / "material_version").rename(tmp_path / "elsewhere")
    train, val = data.splits(tmp_path / "trashcan")
    folder = tmp_path / "trashcan" / "instance_version"
    photos = [str(folder / part / "a.jpg") for part in ("train", "val")]
    assert [train[0]["source"], val[0]["source"]] == photos
    assert data.open(folder / "instances_val_trashcan.json")[0]["source"] == photos[1]


def test_one_file_of_a_download(tmp_path):
    coco(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "images" / "val2017")
    for found in (data.open(tmp_path / "annotations" / "instances_val2017.json"), data.open(tmp_path)):
        assert found[0]["source"] == str(tmp_path / "images" / "val2017" / "a.jpg")


def test_a_damaged_file_is_the_reason(tmp_path):
    (tmp_path / "objects.json").write_text('{"images": [')
    for path in (tmp_path, tmp_path / "objects.json"):
        with pytest.raises(data.DataError, match=r"objects\.json: cannot be read as JSON \(Expecting value"):
            data.open(path)


def test_a_set_without_a_part_for_training(tmp_path):
    for part in ("valid", "test"):
        coco(tmp_path / part / "_annotations.coco.json", tmp_path / part)
    with pytest.raises(data.DataError, match="holds the splits test, valid: choose one by split="):
        data.splits(tmp_path)
    assert len(data.open(tmp_path, "valid")) == 2
    (tmp_path / "test" / "_annotations.coco.json").unlink()
    train, val = data.splits(tmp_path)
    assert len(train) == len(val) == 1


def test_one_set_is_divided(tmp_path):
    coco(tmp_path / "one" / "all.json", tmp_path / "one" / "images")
    for i in range(11):
        labelme(tmp_path / "faces", f"p{i:02d}")
    for path in (tmp_path / "one", tmp_path / "one" / "all.json"):
        train, val = data.splits(path)
        assert (len(train), len(val), len(data.open(path))) == (1, 1, 2)
    train, val = data.splits(tmp_path / "faces")
    assert [sample["image_id"] for sample in val] == ["p00", "p10"] and len(train) == 9
    via(tmp_path / "single")
    assert len(data.open(tmp_path / "single")) == 1
    with pytest.raises(ValueError, match="a data set of one image cannot be divided"):
        data.splits(tmp_path / "single" / "via_region_data.json")


def test_parts_are_functions_that_open_each_set(tmp_path):
    from keras_maskrcnn.data import formats

    layouts(tmp_path)
    assert {name: len(opener()) for name, opener in formats.parts(tmp_path / "coco").items()} == {"train": 2, "val": 2}
    assert list(formats.parts(tmp_path / "labelme" / "train")) == ["all"]


def test_other_paths_say_why_no_format_fits(tmp_path):
    photo(tmp_path / "photos" / "a.jpg")
    with pytest.raises(data.DataError) as caught:
        data.open(tmp_path / "photos")
    names = (
        "LVIS",
        "COCO",
        "VIA",
        "LabelMe",
        "YOLO",
        "Pascal VOC",
        "Cityscapes",
        "Open Images",
        "Penn-Fudan",
        "nuclei",
    )
    for name in (*names, "mask files"):
        assert f"{name}: no" in str(caught.value) or f"{name}: neither" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(data.DataError, match="no such file or folder"):
        data.splits(tmp_path / "none")
    (tmp_path / "photos" / "data.yaml").write_text("names: [a\n")
    with pytest.raises(data.DataError, match=r"data.yaml: cannot be read as YAML"):
        data.open(tmp_path / "photos")


def test_files_that_are_named_after_their_sets(tmp_path):
    for folder in ("beside", "under/annotations"):
        for part in ("train", "val"):
            coco(tmp_path / folder / f"{part}.json", tmp_path / folder.split("/")[0] / "images")
    for path in (tmp_path / "beside", tmp_path / "under"):
        train, val = data.splits(path)
        assert [part[1]["source"] for part in (train, val)] == [str(path / "images" / "b.jpg")] * 2
        assert (train.path.name, val.path.name) == ("train.json", "val.json")


def test_usual_mistakes_are_named_first(tmp_path):
    photo(tmp_path / "photos" / "deep" / "a.jpg")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    for name in ("first", "second"):
        coco(tmp_path / "two" / f"{name}.json", tmp_path / "two" / "images")
    photo(tmp_path / "lines" / "a.jpg")
    (tmp_path / "lines" / "all.jsonl").write_text("{}\n{}\n")
    found = {}
    for name in ("lines", "photos", "empty", "two", "photos/deep/a.jpg"):
        with pytest.raises(data.DataError) as caught:
            data.open(tmp_path / name)
        found[name] = caught.value.reason
    assert found["photos"].startswith("holds images, and no annotations: no known format (COCO: ")
    assert found["lines"].startswith("holds annotations as JSON Lines, export JSON or YOLO text: no known format")
    assert found["empty"].startswith("is a folder without files: no known format (COCO: ")
    assert found["two"].startswith("holds 2 COCO files (first.json, second.json): give one of them")
    assert found["photos/deep/a.jpg"] == "is an image: give its annotations"


def test_classes_of_both_sets_must_agree(tmp_path):
    layouts(tmp_path)
    path = tmp_path / "labelme" / "val" / "a.json"
    path.write_text(path.read_text().replace("pear", "fig"))
    with pytest.raises(data.DataError, match="val has the classes fig, train pear"):
        data.splits(tmp_path / "labelme")


def test_the_real_sets(kmr_data):
    expected = {
        "droplets_via": ("Via", 72, 2, 1),
        "coco128-seg": ("Yolo", 93, 11, 71),
        "fruits_nuts": ("Coco", 12, 2, 3),
        "coco_tiny": ("Coco", 200, 40, 80),
        "PennFudanPed": ("PennFudan", 120, 20, 1),
        "nuclei": ("Nuclei", 534, 50, 1),
        "cis680_hw3_sample": ("Cis680", 36, 12, 3),
    }
    for name, (kind, *counts) in expected.items():
        train, val = data.splits(kmr_data / name)
        reader = getattr(train, "dataset", train)
        assert (type(reader).__name__, len(train), len(val), train.num_classes) == (kind, *counts)


def test_evaluate_takes_any_of_them(tmp_path, monkeypatch, capsys):
    from keras_maskrcnn import evaluation
    from keras_maskrcnn.cli import evaluate, main

    layouts(tmp_path)
    seen = []
    monkeypatch.setattr(evaluate, "load", lambda path: types.SimpleNamespace(image_type=data.ImageType()))
    monkeypatch.setattr(evaluation, "explain", lambda model, dataset, **_: seen.append(dataset) or {})
    monkeypatch.setattr(evaluation, "format_scores", lambda scores: "scores")
    for words in (["--data", "via"], ["--data", "via", "--split", "train"], ["--data", "yolo"]):
        words = [str(tmp_path / word) if word in ("via", "yolo") else word for word in words]
        assert main(["evaluate", "--model", "m", *words]) in (0, None), capsys.readouterr().err
    names = [(type(dataset).__name__, dataset[0]["source"].split("/")[-2]) for dataset in seen]
    assert names == [("Via", "val"), ("Via", "train"), ("Yolo", "val")]
    assert main(["evaluate", "--model", "m", "--data", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_every_format_survives_a_coco_file(tmp_path, assert_round_trip):
    for name in layouts(tmp_path):
        assert_round_trip(data.splits(tmp_path / name)[0], tmp_path / "out" / f"{name}.json")


@pytest.mark.parametrize("name", ["droplets_via", "coco128-seg", "fruits_nuts", "coco_tiny", "PennFudanPed", "nuclei"])
def test_real_sets_survive_a_coco_file(kmr_data, tmp_path, name, assert_round_trip):
    dataset = data.splits(kmr_data / name)[0]
    assert_round_trip(dataset[:: max(len(dataset) // 5, 1)], tmp_path / "out.json")


def test_a_coco_file_needs_image_files(tmp_path):
    with pytest.raises(data.DataError, match="is no image file"):
        data.write_coco(data.Shapes(2), tmp_path / "out.json")


def test_what_a_coco_file_cannot_state_is_named(tmp_path):
    via(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    dataset = data.Via(tmp_path)
    with pytest.raises(data.DataError, match="no sample of the data set can be read"):
        data.write_coco(dataset, tmp_path / "out.json")
    assert list(dataset.skipped.values()) == ["its EXIF orientation 3 cannot be stated in a COCO file"]
