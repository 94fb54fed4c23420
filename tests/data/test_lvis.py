"""LVIS' layout, generated: photos of two of COCO's folders, found by their addresses."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data

SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]


def image(number, folder, **changes):
    address = f"http://images.cocodataset.org/{folder}/{number:012d}.jpg"
    lists = {"neg_category_ids": [5], "not_exhaustive_category_ids": [2]}
    return {"id": number, "coco_url": address, "height": 20, "width": 30, **lists, **changes}


@pytest.fixture
def folder(tmp_path):
    for number, place in ((1, "train2017"), (2, "train2017"), (3, "val2017")):
        (tmp_path / place).mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(tmp_path / place / f"{number:012d}.jpg")
    parts = {"train": [image(1, "train2017")], "val": [image(2, "train2017"), image(3, "val2017")]}
    (tmp_path / "annotations").mkdir()
    for part, images in parts.items():
        annotations = [
            {"id": i["id"], "image_id": i["id"], "category_id": 2, "segmentation": SQUARE, "bbox": [1, 1, 8, 8]}
            for i in images
        ]
        categories = [{"id": number, "name": name, "frequency": "r"} for number, name in ((2, "acorn"), (5, "zebra"))]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "annotations" / f"lvis_v1_{part}.json").write_text(json.dumps(content))
    return tmp_path


def test_photos_of_both_folders(folder, assert_round_trip):
    train, val = data.splits(folder)
    assert type(train) is type(val) is data.Lvis and train.class_names == ["acorn", "zebra"]
    assert [sample["source"] for sample in val] == [
        str(folder / "train2017" / "000000000002.jpg"),
        str(folder / "val2017" / "000000000003.jpg"),
    ]
    np.testing.assert_array_equal(val[1]["boxes"], [[1, 1, 9, 9]])
    assert not val[1]["crowd"].any()
    assert val.absent_at(0).tolist() == [2] and val.incomplete_at(0).tolist() == [1]
    assert_round_trip(val, folder / "out.json")


def test_a_file_alone_is_recognised_under_any_name(folder):
    path = folder / "annotations" / "lvis_v1_val.json"
    path = path.rename(path.with_name("objects.json"))
    assert type(data.open(path)) is data.Lvis and len(data.open(path)[1]["labels"]) == 1
    photos = folder / "train2017"
    assert data.Lvis(path, photos)[0]["source"] == str(photos / "000000000002.jpg")


def test_names_of_the_older_version_are_ignored(folder):
    path = folder / "annotations" / "lvis_v1_train.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "COCO_val2014_000000000001.jpg"
    path.write_text(json.dumps(content))
    assert len(data.Lvis(path, folder)[0]["labels"]) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"neg_category_ids": None}, r"images\[0\] has no neg_category_ids, or one with unknown categories"),
        ({"not_exhaustive_category_ids": [7]}, r"has no not_exhaustive_category_ids, or one with unknown categories"),
        ({"coco_url": "http://a/../b.jpg"}, "outside the folder of images"),
        ({"coco_url": 3}, "3: no such file"),
    ],
)
def test_faults_are_one_line(folder, changes, reason):
    path = folder / "annotations" / "lvis_v1_train.json"
    content = json.loads(path.read_text())
    content["images"][0].update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(data.DataError, match=reason):
        data.Lvis(path, folder)[0]


def test_a_coco_file_without_addresses(folder):
    path = folder / "annotations" / "lvis_v1_train.json"
    content = json.loads(path.read_text())
    del content["images"][0]["coco_url"]
    path.write_text(json.dumps(content))
    with pytest.raises(data.DataError, match=r"images\[0\] lacks one of coco_url, height, id, width"):
        data.Lvis(path, folder)
