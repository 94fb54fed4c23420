"""The verdict of `--overfit`, and which images it takes."""

import argparse

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.inference.placement import Resize
from keras_maskrcnn.training import overfit
from keras_maskrcnn.training.overfit import judged

FELL = {"loss": [4.0, 1.0], "skipped_steps": [0.0, 0.0], "proposal_recall": [0.5, 1.0]}


def test_a_model_that_has_memorised_its_images():
    verdict, lines = judged({"bbox_AP": 0.9, "segm_AP": 0.8}, FELL, [], 300)
    assert verdict == {"memorised": True, "score": "segm_AP", "figure": 0.8, "first_loss": 4.0, "last_loss": 1.0}
    assert lines[0].startswith("The model has memorised its training images: segm AP 0.800 on them")
    assert "the loss was 4 in the first epoch and 1 in the last of 300 steps" in lines[0] and len(lines) == 2


def reasons(figures, history=FELL, frozen=(), steps=300):
    verdict, lines = judged(figures, {**FELL, **history}, list(frozen), steps)
    assert not verdict["memorised"] and "has NOT memorised" in lines[0] and lines[1] == "Look at first:"
    assert "inspect DATA" in lines[-1]
    return lines[2:]


POOR = {"bbox_AP": 0.3, "segm_AP": 0.2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"history": {"skipped_steps": [3.0, 4.0]}}, "1. 7 steps were skipped"),
        ({"steps": 40}, "1. 40 steps are few"),
        ({"history": {"loss": [4.0, 3.0]}}, "--find-lr proposes"),
        ({"history": {"loss": [4.0, float("nan")]}}, "--find-lr proposes"),
        ({"history": {"proposal_recall": [0.2, 0.4]}}, "the proposals cover 40% of the objects"),
        (
            {"frozen": ["backbone/a", "backbone/b", "fpn", "rpn"]},
            "backbone/a, backbone/b, fpn and 1 more layers; train",
        ),
    ],
)
def test_each_cause_is_named_where_there_is_evidence(options, words):
    first, last = reasons(POOR, **options)
    assert words in first and first.startswith("  1. ") and last.startswith("  2. ")


def test_without_evidence_the_labels_remain():
    assert len(reasons(POOR)) == 1
    assert "boxes are right and masks are not" in reasons({"bbox_AP": 0.9, "segm_AP": 0.4})[0]


def test_a_model_without_masks_is_judged_by_its_boxes():
    assert judged({"bbox_AP": 0.85}, FELL, [], 300)[0]["score"] == "bbox_AP"
    assert len(reasons({"bbox_AP": 0.5})) == 1
    assert judged({"mean_IoU": 0.85}, {"loss": [1.0, 0.1]}, [], 300)[0]["memorised"]


class Some(data.Dataset):
    """Eight images of 20 × 30 pixels; 0 and 3 have no objects, 5 cannot be read."""

    class_names = ("one",)

    def __len__(self):
        return 8

    def read(self, position):
        if position == 5:
            raise DataError("five.png", "is truncated")
        masks = np.zeros((0 if position in (0, 3) else 2, 20, 30), bool)
        for index, mask in enumerate(masks):
            mask[12 + 4 * index : 15 + 4 * index, 20:28] = True
        return {"image": np.zeros((20, 30, 3), np.uint8), "masks": masks, "labels": [1] * len(masks)}


def model(image_size=None, **resize):
    return argparse.Namespace(image_size=image_size, resize=Resize(**resize), stretch=None)


def test_the_first_images_with_objects_are_taken():
    for given in (model((64, 64)), model((64, 64), scale=2.0), model()):
        found = overfit.images(Some(), 4, given, (64, 64))
        assert [found.indices[i] for i in range(4)] == [1, 2, 4, 6]
        assert found[0]["image"].shape == (20, 30, 3)
    with pytest.raises(ValueError, match="--overfit 6: the training set has 5 images with objects"):
        overfit.images(Some(), 6, model(), (64, 64))


def test_a_model_of_one_scale_gets_windows_that_fill_the_canvas():
    found = overfit.images(Some(), 2, model(scale=2.0), (16, 24))
    one, again = found[1], found[1]
    # The objects are in the lower right quarter, which most random windows of 8 × 12 pixels miss.
    assert one["image"].shape == (8, 12, 3) and len(one["labels"]) and found.coco_annotations(0) is None
    np.testing.assert_array_equal(one["masks"], again["masks"])


def test_batches_have_the_canvas_of_the_detection_and_room_for_all_objects():
    train = data.Shapes(3, image_size=(64, 96), seed=1)
    like = data.batches(train, (32, 32), 2, max_instances=1, mask_size=14, augment="strong", repeat=True)
    own = overfit.batches(train, model((64, 96)), like, argparse.Namespace(batch_size=2, seed=0, workers=1))
    x, y = next(iter(own))
    assert x["images"].shape == (2, 64, 96, 3) and y["masks"].shape[2:] == (14, 14)
    assert y["boxes"].shape[1] == max(len(sample["labels"]) for sample in train)
    for image, index in zip(np.asarray(x["images"]), np.asarray(x["image_index"]), strict=True):
        np.testing.assert_array_equal(image, train[int(index)]["image"])  # no augmentation
