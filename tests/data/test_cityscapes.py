"""Cityscapes' layout, generated."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data

NAME = "{0}/{0}_000000_00001{1}"
SIZE = (20, 40)


def rectangle(x1, y1, x2, y2):
    """Corners of the pixels x1..x2 - 1, y1..y2 - 1; an outline's own pixels belong to the object."""
    return [[x1, y1], [x2 - 1, y1], [x2 - 1, y2 - 1], [x1, y2 - 1]]


# From back to front: a road, two cars that overlap, a plate, a group of cars, a person, a caravan.
OBJECTS = [
    {"label": "road", "polygon": rectangle(0, 0, 40, 20)},
    {"label": "car", "polygon": rectangle(2, 2, 12, 10)},
    {"label": "car", "polygon": rectangle(8, 4, 20, 12)},
    {"label": "license plate", "polygon": rectangle(14, 8, 16, 10)},
    {"label": "cargroup", "polygon": rectangle(22, 2, 30, 8)},
    {"label": "person", "polygon": rectangle(24, 12, 26, 18)},
    {"label": "caravan", "polygon": rectangle(30, 10, 40, 18)},
    {"label": "car", "polygon": rectangle(0, 0, 40, 20), "deleted": 1},
]


def ids_of_objects():
    ids = np.full(SIZE, 7, np.int32)
    ids[2:10, 2:12] = 26000
    ids[4:12, 8:20] = 26001
    ids[2:8, 22:30] = 26
    ids[12:18, 24:26] = 24000
    ids[10:18, 30:40] = 29000
    return ids


@pytest.fixture
def folder(tmp_path):
    for split, city, count in (("train", "aachen", 2), ("train", "ulm", 1), ("val", "lindau", 1), ("test", "bonn", 1)):
        for number in range(count):
            image = tmp_path / "leftImg8bit" / split / f"{NAME.format(city, number)}_leftImg8bit.png"
            start = str(tmp_path / "gtFine" / split / f"{NAME.format(city, number)}_gtFine_")
            for parent in (image.parent, tmp_path / "gtFine" / split / city):
                parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((*SIZE, 3), number, np.uint8)).save(image)
            ids = ids_of_objects() if split != "test" else np.full(SIZE, 3)
            Image.fromarray(ids.astype(np.uint16)).save(start + "instanceIds.png")
            content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": OBJECTS}
            (tmp_path / f"{start}polygons.json").write_text(json.dumps(content))
    return tmp_path


def test_objects_groups_and_splits(folder, tmp_path, assert_round_trip):
    train, val = data.splits(folder)
    assert type(train) is data.Cityscapes and train.num_classes == 8
    assert [sample["image_id"] for sample in train] == [
        "aachen_000000_000010",
        "aachen_000000_000011",
        "ulm_000000_000010",
    ]
    sample = val[0]
    names = [val.class_names[label - 1] for label in sample["labels"]]
    assert list(zip(names, sample["crowd"].tolist(), strict=True)) == [
        ("car", True),
        ("person", False),
        ("car", False),
        ("car", False),
    ]
    np.testing.assert_array_equal(sample["boxes"], [[22, 2, 30, 8], [24, 12, 26, 18], [2, 2, 12, 10], [8, 4, 20, 12]])
    assert sample["masks"].sum((1, 2)).tolist() == [48, 12, 80 - 24, 96]
    assert len(data.open(folder, "test")[0]["labels"]) == 0
    assert_round_trip(train, tmp_path / "out" / "train.json")


def test_polygons_replace_a_missing_mask(folder, tmp_path, assert_round_trip):
    from_masks = list(data.Cityscapes(folder))
    for path in folder.glob("gtFine/*/*/*.png"):
        path.unlink()
    drawn = data.Cityscapes(folder)
    for one, other in zip(from_masks, drawn, strict=True):
        for name in ("image", "labels", "masks", "boxes", "crowd", "image_id"):
            np.testing.assert_array_equal(one[name], other[name])
    assert not drawn.dropped
    assert_round_trip(drawn, tmp_path / "out" / "train.json")


def test_coarse_annotations(folder):
    for path in (folder / "gtFine").rglob("*_gtFine_*"):
        path.rename(path.with_name(path.name.replace("gtFine", "gtCoarse")))
    (folder / "gtFine").rename(folder / "gtCoarse")
    assert len(data.splits(folder)[0][0]["labels"]) == 4


def test_polygons_that_cannot_be_drawn_are_named(folder):
    [path] = folder.glob("gtFine/val/*/*.json")
    path.with_name(path.name.replace("polygons.json", "instanceIds.png")).unlink()
    content = json.loads(path.read_text())
    bad = ([[1, 1], [2, 2]], [[1, 1], [2, "2"], [3, 3]], None, [[1, 1], [1e300, 2], [3, 3]])
    content["objects"] += [{"label": "car", "polygon": polygon} for polygon in bad]
    path.write_text(json.dumps(content))
    val = data.Cityscapes(folder, "val")
    assert len(val[0]["labels"]) == 4
    reasons = [
        "has 4 coordinates",
        "are not numbers",
        "has 0 coordinates",
        "beyond 1000000 pixels",
    ]
    assert list(val.dropped) == [f"{path.name}, object {number}" for number in range(8, 12)]
    assert all(part in reason for part, reason in zip(reasons, val.dropped.values(), strict=True))
    path.write_text(json.dumps({**content, "imgWidth": 2048}))
    with pytest.raises(data.DataError, match="is of an image of 2048 x 20 pixels, not 40 x 20"):
        val[0]
    path.write_text("[]")
    with pytest.raises(data.DataError, match=r"polygons\.json: is no file of Cityscapes"):
        val[0]


def test_faults_are_one_line(folder):
    with pytest.raises(data.DataError, match="no such folder"):
        data.Cityscapes(folder, "training")
    [image] = folder.glob("leftImg8bit/val/*/*.png")
    Image.new("RGB", (8, 8)).save(image)
    with pytest.raises(data.DataError, match=r"the mask has shape \[20, 40\], its image \[8, 8\]"):
        data.Cityscapes(folder, "val")[0]
    image.unlink()
    with pytest.raises(data.DataError, match=r"_leftImg8bit\.png: no such file"):
        data.Cityscapes(folder, "val")[0]
    for path in folder.glob("gtFine/val/*/*"):
        path.unlink()
    with pytest.raises(data.DataError, match=r"has no CITY/NAME_gtFine_instanceIds\.png and no polygons"):
        data.Cityscapes(folder, "val")


def test_convert_data(folder, tmp_path, capsys):
    from keras_maskrcnn.cli import main

    output = tmp_path / "out" / "val.json"
    assert main(["convert-data", str(folder), "--split", "val", "--output", str(output)]) == 0
    assert f"{output}: 1 image in {folder / 'leftImg8bit' / 'val' / 'lindau'}" in capsys.readouterr().out
    crowds = [annotation["iscrowd"] for annotation in json.loads(output.read_text())["annotations"]]
    assert crowds == [1, 0, 0, 0]
