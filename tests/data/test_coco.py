import json
import logging
import re

import numpy as np
import pytest
from pycocotools import mask as run_length

from keras_maskrcnn import data

SQUARE = {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]], "bbox": [2, 1, 4, 3]}
COUNTS = {"counts": [9, 3, 68], "size": [8, 10]}  # columns first: pixels 9, 10, 11 are rows 1..3 of column 1


def test_worked_by_hand(coco_folder):
    path, folder = coco_folder([SQUARE, {**SQUARE, "category_id": 7}])
    coco = data.Coco(str(path), folder)
    found = coco[0]
    assert coco.class_names == ["zebra", "ant"] and coco.category_ids == [3, 7]
    assert found["labels"].tolist() == [1, 2]
    assert found["boxes"].tolist() == [[2, 1, 6, 4]] * 2
    assert np.argwhere(found["masks"][0]).min(0).tolist() == [1, 2] and found["masks"][0].sum() == 12
    assert found["image_id"] == 0 and found["source"].endswith("one.png") and not found["crowd"].any()


def test_a_category_of_background_is_left_out_unless_it_is_used(coco_folder):
    """labelme2coco lists it as class 0."""
    path, folder = coco_folder([SQUARE, {**SQUARE, "category_id": 7}])
    content = json.loads(path.read_text())
    content["categories"].append({"id": 0, "name": "_background_"})
    path.write_text(json.dumps(content))
    coco = data.Coco(path, folder)
    assert coco.class_names == ["zebra", "ant"] and coco[0]["labels"].tolist() == [1, 2]
    content["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(content))
    assert data.Coco(path, folder).class_names == ["_background_", "zebra", "ant"]


def test_run_lengths_compressed_and_not(coco_folder):
    packed = run_length.frPyObjects(COUNTS, 8, 10)
    packed = {"size": packed["size"], "counts": packed["counts"].decode()}
    annotations = [{"segmentation": runs, "bbox": [1, 1, 1, 3], "iscrowd": 1} for runs in (COUNTS, packed)]
    found = data.Coco(*coco_folder(annotations))[0]
    for mask in found["masks"]:
        assert np.argwhere(mask).tolist() == [[1, 1], [2, 1], [3, 1]]
    assert found["crowd"].tolist() == [True, True]


def test_a_polygon_of_several_parts_is_one_instance(coco_folder):
    parts = {"segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [7, 5, 9, 5, 9, 7, 7, 7], [1, 1, 2, 2]], "bbox": [0, 0, 9, 7]}
    found = data.Coco(*coco_folder([parts]))[0]
    assert found["masks"].shape[0] == 1 and found["masks"].sum() == 8


def test_box_is_taken_from_the_mask_where_none_is_given(coco_folder):
    assert data.Coco(*coco_folder([{"segmentation": COUNTS}]))[0]["boxes"].tolist() == [[1, 1, 2, 4]]


def test_boxes_are_masks_on_request(coco_folder):
    annotations = [{"bbox": [2, 1, 4, 3]}, {"bbox": [0, 0, 2, 2], "segmentation": []}, SQUARE, {"segmentation": COUNTS}]
    path, folder = coco_folder(annotations)
    assert len(data.Coco(path, folder)[0]["labels"]) == 2  # those with a mask
    coco = data.Coco(path, folder, boxes_only=True)
    found = coco[0]
    assert not coco.dropped and found["boxes"].tolist() == [[2, 1, 6, 4], [0, 0, 2, 2], [2, 1, 6, 4], [1, 1, 2, 4]]
    assert found["masks"].sum((1, 2)).tolist() == [12, 4, 12, 3]
    assert (found["masks"][0] == found["masks"][2]).all()
    assert ["segm" in a["unreadable"] for a in coco.coco_annotations(0)] == [True, True, False, False]


def test_images_without_objects_are_kept(coco_folder):
    coco = data.Coco(*coco_folder([SQUARE], images=("one.png", "two.png")))
    assert len(coco) == 2 and coco[1]["masks"].shape == (0, 8, 10)


def test_annotations_can_be_missing(coco_folder):
    path, folder = coco_folder([])
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert len(data.Coco(path, folder)[0]["labels"]) == 0


def test_unusable_annotations_are_dropped_and_counted(coco_folder, caplog):
    annotations = [
        SQUARE,
        {**SQUARE, "bbox": [2, 1, 0, 3]},
        {**SQUARE, "bbox": [20, 1, 4, 3]},
        {**SQUARE, "bbox": [2, 1, float("nan"), 3]},
        {**SQUARE, "segmentation": []},
        {**SQUARE, "segmentation": [[2, 1, 6, 1]]},
        {**SQUARE, "segmentation": {"counts": [80], "size": [8, 10]}},
    ]
    with caplog.at_level(logging.WARNING):
        coco = data.Coco(*coco_folder(annotations))
    assert "4 annotations left out (11: its box has no width)" in caplog.text
    assert len(coco[0]["labels"]) == 1 and len(coco[0]["labels"]) == 1
    assert list(coco.dropped) == [11, 12, 13, 14, 15, 16]
    assert (
        coco.dropped[12] == "its box lies outside the image of 10 x 8 pixels"
        and coco.dropped[16] == "its mask is empty"
    )


def test_a_box_over_the_border_is_clipped(coco_folder):
    assert data.Coco(*coco_folder([{**SQUARE, "bbox": [-3, 1, 30, 3]}]))[0]["boxes"].tolist() == [[0, 1, 10, 4]]


def test_missing_files(coco_folder, tmp_path):
    path, folder = coco_folder([SQUARE])
    with pytest.raises(data.DataError, match="no such annotation file"):
        data.Coco(tmp_path / "none.json", folder)
    with pytest.raises(data.DataError, match=re.escape(f"{tmp_path / 'none'}: no such folder of images")):
        data.Coco(path, tmp_path / "none")
    (folder / "one.png").unlink()
    with pytest.raises(data.DataError, match=r"one\.png: no such file"):
        data.Coco(path, folder)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the annotation file is empty"),
        ("{", "is not valid JSON"),
        ("[]", "it lists no images"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "it lists no images"),
        ('{"images": [{"id": 1, "file_name": "a", "height": 1, "width": 1}]}', "it lists no categories"),
        ('{"images": [{"id": 1}]}', r"images\[0\] lacks one of file_name, height, id, width"),
    ],
)
def test_files_that_are_not_coco(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(data.DataError, match=message) as caught:
        data.Coco(path, tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 5}, "annotation 10 has the unknown category 5"),
        ({"image_id": 4}, "annotation 10 has the unknown image 4"),
    ],
)
def test_annotations_with_unknown_references(coco_folder, change, message):
    with pytest.raises(data.DataError, match=message):
        data.Coco(*coco_folder([{**SQUARE, **change}]))


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"counts": [4, 2, 3], "size": [3, 3]}, "its mask has the size [3, 3], the image [8, 10]"),
        ({"counts": [4, 2, 3], "size": [8, 10]}, "its run lengths do not add up to the image's pixels"),
        ({"counts": [80]}, "its mask is neither polygons nor run lengths"),
        ([["a"] * 6], "its mask is neither polygons nor run lengths"),
    ],
)
def test_broken_masks_are_dropped(coco_folder, segmentation, reason):
    coco = data.Coco(*coco_folder([{**SQUARE, "segmentation": segmentation}, SQUARE]))
    assert len(coco[0]["labels"]) == 1 and coco.dropped == {10: reason}


def test_an_image_of_another_size_than_annotated(coco_folder):
    images = [{"id": 0, "file_name": "one.png", "height": 9, "width": 10}]
    path, folder = coco_folder([SQUARE])
    path.write_text(json.dumps({**json.loads(path.read_text()), "images": images}))
    with pytest.raises(data.DataError, match=r"is 10 x 8 pixels, but 10 x 9 in instances\.json"):
        data.Coco(path, folder)[0]


def test_nothing_is_printed(coco_folder, capsys):
    data.Coco(*coco_folder([SQUARE]))[0]
    assert capsys.readouterr() == ("", "")


def test_fruits_and_nuts(kmr_data):
    coco = data.Coco(kmr_data / "fruits_nuts" / "trainval.json", kmr_data / "fruits_nuts" / "images")
    assert (len(coco), coco.num_classes) == (14, 3)
    assert coco[0]["image_id"] == 0
    assert sum(len(found["labels"]) for found in coco) == 131 and not coco.dropped


def test_coco_tiny(kmr_data):
    from pycocotools.coco import COCO

    root = kmr_data / "coco_tiny"
    coco = data.Coco.from_folder(root, "val")
    official = COCO(root / "annotations" / "instances_val.json")
    assert (len(coco), coco.num_classes, coco.category_ids[-1]) == (40, 80, 90)
    instances, crowds = 0, 0
    for found in coco:
        annotations = official.loadAnns(official.getAnnIds(imgIds=[found["image_id"]]))
        assert [coco.category_ids[label - 1] for label in found["labels"]] == [a["category_id"] for a in annotations]
        for mask, annotation in zip(found["masks"], annotations, strict=True):
            np.testing.assert_array_equal(mask, official.annToMask(annotation).astype(bool))
        instances, crowds = instances + len(annotations), crowds + found["crowd"].sum()
    assert (instances, crowds) == (423, 6)


def test_coco_tiny_keeps_its_negatives_and_crowds(kmr_data):
    coco = data.Coco.from_folder(kmr_data / "coco_tiny", "train")
    places = {image["id"]: place for place, image in enumerate(coco.images)}
    assert len(coco) == 200
    assert all(len(coco[places[number]]["labels"]) == 0 for number in (262284, 58636))
    crowded = {number for number in places if any(a["iscrowd"] for a in coco.coco_annotations(number))}
    assert sum(coco[places[number]]["crowd"].sum() for number in crowded) == 26
