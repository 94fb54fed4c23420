import pickle

import numpy as np
import pytest

from keras_maskrcnn import data

BROKEN = {
    "zero width": ({"boxes": [[5, 5, 5, 9]]}, "box 0 (5, 5, 5, 9) has no width"),
    "zero height": ({"boxes": [[5, 9, 7, 9]]}, "has no height"),
    "corners exchanged": ({"boxes": [[9, 5, 2, 9]]}, "has no width"),
    "right of the image": ({"boxes": [[60, 5, 70, 9]]}, "lies outside the image of 48 x 32 pixels"),
    "just right of the image": ({"boxes": [[48, 5, 48.5, 9]]}, "lies outside"),
    "far over the border": ({"boxes": [[40, 5, 50, 9]]}, "lies outside"),
    "nan": ({"boxes": [[np.nan, 5, 7, 9]]}, "is not finite"),
    "infinite": ({"boxes": [[0, 0, np.inf, 9]]}, "is not finite"),
    "two boxes, one label": ({"boxes": [[1, 1, 2, 2], [3, 3, 4, 4]]}, "boxes have shape [2, 4] for 1 labels"),
    "label of background": ({"labels": [0]}, "label 0 of instance 0 is not in 1..3"),
    "label beyond the classes": ({"labels": [4]}, "label 4 of instance 0 is not in 1..3"),
    "label of another kind": ({"labels": [1.5]}, "labels are float64"),
    "mask of another size": ({"masks": np.ones((1, 32, 47), bool)}, "masks are bool of shape [1, 32, 47]"),
    "too many masks": ({"masks": np.ones((2, 32, 48), bool)}, "not bool of shape [1, 32, 48]"),
    "no mask": ({"masks": np.zeros((0, 32, 48), bool)}, "not bool of shape [1, 32, 48]"),
    "mask of floats": ({"masks": np.ones((1, 32, 48))}, "masks are float64"),
    "empty mask": ({"masks": np.zeros((1, 32, 48), bool)}, "mask 0 is empty"),
    "crowd of another length": ({"crowd": [True, False]}, "crowd has shape [2] for 1 labels"),
    "image of floats": ({"image": np.zeros((32, 48, 3))}, "the image is float64, not uint8"),
    "grey image": ({"image": np.zeros((32, 48), np.uint8)}, "the image has shape [32, 48]"),
    "image without pixels": ({"image": np.zeros((0, 48, 3), np.uint8)}, "the image has shape [0, 48, 3]"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_sample_is_named_in_one_line(sample, change, message):
    with pytest.raises(data.DataError) as caught:
        data.validate({**sample([[5, 5, 9, 9]]), "source": "street.png", **change}, 3)
    text = str(caught.value)
    assert text.startswith("street.png: ") and message in text and "\n" not in text


def test_a_missing_entry_is_named(sample):
    broken = sample([[5, 5, 9, 9]])
    del broken["labels"]
    with pytest.raises(data.DataError, match="the sample has no labels"):
        data.validate(broken, 3)


def test_a_good_sample_gets_the_dtypes_of_the_contract(sample):
    good = sample([[5, 5, 9, 9]])
    loose = {**good, "boxes": [[5, 5, 9, 9]], "labels": [2], "masks": good["masks"].astype(np.uint8)}
    del loose["crowd"]
    found = data.validate(loose, 3)
    kinds = {"image": "uint8", "boxes": "float32", "labels": "int32", "masks": "bool", "crowd": "bool"}
    assert {key: found[key].dtype.name for key in kinds} == kinds
    assert set(found) == {*kinds, "image_id", "source", "fields"}
    assert not found["crowd"].any()


def test_boxes_that_are_not_given_are_those_of_the_masks(sample):
    good = sample([[5, 5, 9, 9], [1, 2, 40, 30]])
    boxes = good.pop("boxes")
    np.testing.assert_array_equal(data.validate(good, 3)["boxes"], boxes)
    with pytest.raises(data.DataError, match="mask 1 is empty"):
        data.validate({**good, "masks": good["masks"] * np.array([1, 0]).reshape(2, 1, 1)}, 3)


def test_rounding_over_the_border_is_clipped(sample):
    good = sample([[40, 20, 48, 32]])
    found = data.validate({**good, "boxes": [[-0.4, -1, 48.7, 32.01]]}, 3)
    np.testing.assert_array_equal(found["boxes"], [[0, 0, 48, 32]])


def test_a_sample_without_objects_is_good(sample):
    found = data.validate({**sample([]), "boxes": [], "labels": [], "masks": [], "crowd": []}, 3)
    assert found["boxes"].shape == (0, 4)
    assert found["masks"].shape == (0, 32, 48)
    assert found["labels"].dtype == np.int32


def test_indexing(sample, in_memory):
    three = in_memory([sample([[i, 0, i + 1, 1]], seed=i) for i in range(3)])
    assert three[-1]["image_id"] == 2 and three[np.int64(1)]["image_id"] == 1
    assert [found["image_id"] for found in three] == [0, 1, 2]
    assert [found["image_id"] for found in three[1:]] == [1, 2]
    for index in (3, -4):
        with pytest.raises(IndexError):
            three[index]


def test_a_data_set_validates_what_it_reads(sample, in_memory):
    with pytest.raises(data.DataError, match=r"label 2 of instance 0 is not in 1\.\.1"):
        in_memory([sample([[0, 0, 4, 4]], labels=[2])], class_names=["only"])[0]


def test_subset_keeps_order_classes_and_skipped(sample, in_memory):
    whole = in_memory([sample([], seed=i) for i in range(5)])
    part = data.Subset(whole, [4, 0, -2])
    assert [found["image_id"] for found in part] == [4, 0, 3]
    assert part.class_names == whole.class_names and part.num_classes == 3
    part.skipped["x"] = "y"
    assert whole.skipped == {"x": "y"}
    with pytest.raises(IndexError):
        data.Subset(whole, [5])


def test_the_error_is_one_line_and_survives_pickling():
    error = pickle.loads(pickle.dumps(data.DataError("a.jpg", "first\nsecond")))
    assert str(error) == "a.jpg: first second"
    assert (error.source, error.reason) == ("a.jpg", "first second")
