"""COCO panoptic files written by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data

CATEGORIES = [
    {"id": 7, "name": "dog", "isthing": 1},
    {"id": 184, "name": "tree", "isthing": 0},
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 92, "name": "banner", "isthing": 0},
]


def write(folder, segments, ids, categories=CATEGORIES, file_name="9.png"):
    images, maps = folder / "images", folder / "panoptic"
    for place in (images, maps):
        place.mkdir(exist_ok=True)
    height, width = ids.shape
    Image.fromarray(np.full((height, width, 3), 9, np.uint8)).save(images / "9.jpg")
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(maps / "9.png")
    content = {
        "images": [{"id": 9, "file_name": "9.jpg", "height": height, "width": width}],
        "annotations": [{"image_id": 9, "file_name": file_name, "segments_info": segments}],
        "categories": categories,
    }
    (folder / "panoptic.json").write_text(json.dumps(content))
    return data.CocoPanoptic(folder / "panoptic.json", images)


IDS = np.zeros((4, 6), int)
IDS[0], IDS[1, :3], IDS[1, 3:], IDS[2], IDS[3, :2] = 3, 256, 65536 + 512 + 1, 70000, 44


def segment(number, category, crowd=0):
    return {"id": number, "category_id": category, "iscrowd": crowd, "area": 1, "bbox": [0, 0, 1, 1]}


def test_segments_by_hand(tmp_path):
    segments = [segment(3, 184), segment(256, 7), segment(66049, 1, crowd=1), segment(70000, 92), segment(999, 1)]
    dataset = write(tmp_path, segments, IDS)
    assert dataset.class_names == ["person", "dog"] and len(dataset) == 1
    assert dataset.fields[0].class_names == ("things", "banner", "tree")
    sample = dataset[0]
    assert sample["labels"].tolist() == [2, 1] and sample["crowd"].tolist() == [False, True]
    np.testing.assert_array_equal(sample["masks"], [IDS == 256, IDS == 66049])
    expected = np.full((4, 6), 255)
    expected[0], expected[1], expected[2] = 2, 0, 1
    np.testing.assert_array_equal(sample["semantic"], expected)  # 44 is not listed, 0 is no segment
    assert sample["image_id"] == 9 and sample["source"].endswith("9.jpg")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"segments": [segment(3, 5)]}, "segment 3 has the category 5, which is not listed"),
        ({"file_name": "../9.png"}, "names the file '../9.png', which is outside the folder of images"),
        ({"file_name": "8.png"}, "8.png"),
        ({"categories": CATEGORIES[1:2]}, "has 0 categories of things and 1 of stuff"),
        ({"categories": [{"id": 1}]}, "is no COCO panoptic file"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, reason):
    with pytest.raises(data.DataError, match=reason):
        write(tmp_path, **{"segments": [segment(3, 184)], "ids": IDS, **change})[0]


def test_a_map_in_grey_or_of_another_size(tmp_path):
    dataset = write(tmp_path, [segment(3, 184)], IDS)
    Image.fromarray(IDS.astype(np.uint8)).save(tmp_path / "panoptic" / "9.png")
    with pytest.raises(data.DataError, match="it has the mode L, not R, G, B"):
        dataset[0]
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "panoptic" / "9.png")
    with pytest.raises(data.DataError, match="has \\[4, 4\\] pixels, its image \\[4, 6\\]"):
        dataset[0]
    with pytest.raises(data.DataError, match="no such folder"):
        data.CocoPanoptic(tmp_path / "panoptic.json", tmp_path / "nowhere")
