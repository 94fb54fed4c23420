"""`data.Arrays`: masks as ids, booleans or polygons give the same samples; wrong input is one line."""

import numpy as np
import pytest

from keras_maskrcnn import data

IMAGES = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), np.uint8)
IDS = np.zeros((2, 20, 30), int)
IDS[0, 2:6, 3:9], IDS[0, 10:14, 20:30], IDS[1, :5, :5] = 1, 7, 2
BOOLS = [np.stack([ids == number for number in np.unique(ids)[1:]]) for ids in IDS]
POLYGONS = [[[3, 2, 9, 2, 9, 6, 3, 6], [20, 10, 30, 10, 30, 14, 20, 14]], [[(0, 0), (5, 0), (5, 5), (0, 5)]]]


@pytest.mark.parametrize("masks", [IDS, list(IDS), BOOLS, POLYGONS])
def test_all_forms_of_masks_are_equal(masks):
    dataset = data.Arrays(IMAGES, masks)
    assert dataset.class_names == ["object"] and len(dataset) == 2
    for sample, wanted in zip(dataset, BOOLS, strict=True):
        np.testing.assert_array_equal(sample["masks"], wanted)
    np.testing.assert_array_equal(dataset[0]["boxes"], [[3, 2, 9, 6], [20, 10, 30, 14]])


def test_labels_are_numbers_or_names():
    by_name = data.Arrays(IMAGES, IDS, [["pear", "apple"], ["pear"]])
    assert by_name.class_names == ["apple", "pear"]
    by_number = data.Arrays(IMAGES, IDS, [[2, 1], np.array([2])], class_names=["apple", "pear"])
    for dataset in (by_name, by_number):
        assert [sample["labels"].tolist() for sample in dataset] == [[2, 1], [2]]


def test_an_image_without_objects():
    sample = data.Arrays(IMAGES[:1], [[]], [[]], ["pear"])[0]
    assert sample["masks"].shape == (0, 20, 30) and sample["boxes"].shape == (0, 4)
    assert len(data.Arrays(IMAGES[:1], IDS[:1] * 0)[0]["labels"]) == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((IMAGES, IDS[:1]), "2 images, 1 masks"),
        ((IMAGES, IDS, [[1]]), "2 images, 2 masks, 1 labels"),
        ((IMAGES, IDS, [[1, 1], [1]]), "labels are numbers: give class_names"),
        ((IMAGES, IDS, [["fig", "pear"], ["pear"]], ["pear"]), "the label 'fig' is not one of pear"),
        ((IMAGES, IDS, [[1, 3], [1]], ["pear"]), "label 3 of instance 1 is not in 1..1"),
        ((IMAGES, IDS, [[1], [1]], ["pear"]), "masks are bool of shape [2, 20, 30]"),
        ((IMAGES, [[[1, 1, 2, 2]], IDS[1]]), "polygon 0 has fewer than three corners"),
        ((IMAGES, [[[1, 1, 2, 2, float("nan"), 3]], IDS[1]]), "polygons: its polygons have coordinates"),
        ((IMAGES.astype(float), IDS), "the image is float64, not uint8"),
    ],
)
def test_wrong_input_is_one_line(arguments, reason):
    with pytest.raises(data.DataError) as caught:
        data.Arrays(*arguments)[0]
    assert reason in str(caught.value) and "\n" not in str(caught.value)
