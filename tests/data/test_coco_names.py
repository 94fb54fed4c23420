"""COCO's categories: both numberings, against the numbers in a real annotation file."""

import json

import pytest

from keras_maskrcnn.data.coco_names import CATEGORIES, coco_names


def test_eighty_without_gaps():
    names = coco_names()
    assert len(names) == len(set(names)) == 80
    assert (names[0], names[11], names[-1]) == ("person", "stop sign", "toothbrush")
    assert list(CATEGORIES) == sorted(CATEGORIES)


def test_ninety_by_category_number():
    names = coco_names(90)
    assert len(set(names)) == 90
    assert all(names[number - 1] == name for number, name in CATEGORIES.items())
    unused = [int(name.split()[1]) for name in names if name.startswith("unused ")]
    assert unused == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


def test_other_numbers_are_rejected():
    with pytest.raises(ValueError, match="not 91"):
        coco_names(91)


@pytest.mark.parametrize("split", ["train", "val"])
def test_numbers_and_names_are_those_of_an_annotation_file(kmr_data, split):
    content = json.loads((kmr_data / "coco_tiny" / "annotations" / f"instances_{split}.json").read_text())
    given = {category["id"]: category["name"] for category in content["categories"]}
    assert given and given.items() <= CATEGORIES.items()
