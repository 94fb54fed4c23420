"""The command line with panoptic models and COCO panoptic files."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.cli import main
from keras_maskrcnn.data.coco_panoptic import colours
from keras_maskrcnn.heads.semantic import SemanticHead
from keras_maskrcnn.inference.panoptic import panoptic_truth

SCENES = data.Scenes(2, (64, 64), seed=2, objects=(1, 2), object_size=(18, 30))
STUFF = SCENES.fields[0].class_names[1:]
NUMBERS = dict(zip([*SCENES.class_names, *STUFF], (7, 9, 11, 100, 90, 80), strict=True))  # ids of the categories


def write_panoptic(folder, split):
    """Writes `SCENES` as COCO's download lies on a disk; returns the JSON file."""
    segments = folder / "annotations" / f"panoptic_{split}"
    for place in (folder / split, segments):
        place.mkdir(parents=True)
    images, annotations = [], []
    for number in range(len(SCENES)):
        sample = SCENES[number]
        merged = panoptic_truth(sample)
        Image.fromarray(sample["image"]).save(folder / split / f"{number}.png")
        Image.fromarray(colours(merged.ids)).save(segments / f"{number}.png")
        names = {one.id: (SCENES.class_names if one.thing else STUFF)[one.label - 1] for one in merged.segments}
        infos = [{"id": key, "category_id": NUMBERS[name], "iscrowd": 0} for key, name in names.items()]
        images.append({"id": number + 50, "file_name": f"{number}.png", "height": 64, "width": 64})
        annotations.append({"image_id": number + 50, "file_name": f"{number}.png", "segments_info": infos})
    categories = [{"id": key, "name": name, "isthing": int(name not in STUFF)} for name, key in NUMBERS.items()]
    file = segments.with_suffix(".json")
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panoptic")
    write_panoptic(folder, "val2017")
    return folder


def small(*heads):
    keras.utils.set_random_seed(3)
    return MaskRCNN(
        3,
        {"name": "resnet10", "width": 8, "norm": "group"},
        fpn_channels=16,
        proposals={"pre_nms": 50, "post_nms": 20},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        image_size=(64, 64),
        class_names=SCENES.class_names,
        heads=heads,
    )


@pytest.fixture(scope="module")
def model(folder):
    path = folder / "model.keras"
    small(SemanticHead(3, {"width": 8}, STUFF)).save(path)
    return path


def test_the_folder_and_the_file_are_found(folder, tmp_path):
    file = folder / "annotations" / "panoptic_val2017.json"
    for found in (data.open(folder, "val"), data.open(file)):
        assert isinstance(found, data.CocoPanoptic) and found.category_ids == [7, 9, 11, 80, 90, 100]
        np.testing.assert_array_equal(found[1]["semantic"] > 0, SCENES[1]["semantic"] > 0)
    (tmp_path / "images").mkdir()
    (folder / "annotations" / "panoptic_val2017").rename(tmp_path / "a")
    try:
        for number in range(2):
            Image.fromarray(SCENES[number]["image"]).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "a.json").write_bytes(file.read_bytes())
        assert len(data.open(tmp_path)[0]["image"]) == 64
    finally:
        (tmp_path / "a").rename(folder / "annotations" / "panoptic_val2017")


def test_instances_come_before_panoptic_files(folder, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").symlink_to(folder / "val2017")
    (tmp_path / "annotations" / "panoptic_val2017").symlink_to(folder / "annotations" / "panoptic_val2017")
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text('{"images": [], "segments_info": []}')
    image = {"id": 1, "file_name": "0.png", "height": 64, "width": 64}
    instances = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(instances))
    assert data.open(tmp_path, "val").class_names == ["cell"]


def test_evaluate(model, folder, tmp_path, capsys):
    command = ["evaluate", "--model", str(model), "--data", str(folder), "--split", "val"]
    assert main([*command, "--panoptic", "--stuff-area", "16", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    assert "PQ stuff" in printed and "water" in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert 0 <= figures["panoptic"]["PQ"] <= 1 and "bbox_AP" in figures
    assert {"TP", "FN"} <= figures["panoptic"]["per_class"]["sky"].keys()
    shapes = ["--dataset", "shapes", "--count", "2", "--image-size", "64"]
    assert main(["evaluate", "--model", str(model), *shapes, "--panoptic"]) == 2
    assert "panoptic quality needs the field 'semantic'" in capsys.readouterr().err


@pytest.mark.parametrize("with_ids", [False, True])
def test_predict(model, folder, tmp_path, with_ids, capsys):
    ids = ["--annotations", str(folder / "annotations" / "panoptic_val2017.json")] if with_ids else []
    options = ["--panoptic", "--stuff-area", "16", "--score", "0.3", *ids]
    command = ["predict", "--model", str(model), str(folder / "val2017"), "--output", str(tmp_path)]
    assert main([*command, *options]) == 0
    assert "2 images done, 0 failed" in capsys.readouterr().out
    assert Image.open(tmp_path / "0.png").size != (0, 0)
    found = json.loads((tmp_path / "panoptic.json").read_text())
    expected = NUMBERS if with_ids else {name: number for number, name in enumerate(NUMBERS, start=1)}
    assert {one["name"]: one["id"] for one in found["categories"]} == expected
    assert {one["name"] for one in found["categories"] if not one["isthing"]} == set(STUFF)
    for number, record in enumerate(found["annotations"]):
        assert record["image_id"] == (number + 50 if with_ids else str(number))
        pixels = np.asarray(Image.open(tmp_path / "panoptic" / record["file_name"]), int)
        areas = np.bincount((pixels @ [1, 256, 256**2]).ravel())
        assert {one["id"]: one["area"] for one in record["segments_info"]} == {
            key: area for key, area in enumerate(areas.tolist()) if key and area
        }
        assert {one["category_id"] for one in record["segments_info"]} <= set(expected.values())
    assert any(one["segments_info"] for one in found["annotations"])


def test_models_without_both_are_named(tmp_path, folder, capsys):
    small().save(tmp_path / "model.keras")
    command = ["predict", "--model", str(tmp_path / "model.keras"), str(folder / "val2017"), "--output", str(tmp_path)]
    assert main([*command, "--panoptic"]) == 2
    assert "--panoptic needs a model with masks and a map of stuff" in capsys.readouterr().err
