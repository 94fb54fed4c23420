"""The score of the Data Science Bowl 2018, worked by hand."""

import time

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.evaluation import dsb_score
from keras_maskrcnn.evaluation.dsb import image_score, label_image


def labels(*boxes):
    """An image of 40 x 40 pixels with rectangles x1, y1, x2, y2 numbered from 1."""
    image = np.zeros((40, 40), np.int32)
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        image[y1:y2, x1:x2] = number
    return image


TWO = labels((0, 0, 10, 10), (20, 20, 30, 30))


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (TWO, 1.0),
        (TWO * 7, 1.0),  # numbers mean nothing
        (labels(), 0.0),
        (labels((0, 0, 10, 10)), 1 / 2),  # TP 1, FN 1 at every threshold
        (labels((0, 0, 10, 10), (20, 20, 30, 30), (35, 35, 40, 40)), 2 / 3),  # TP 2, FP 1
        # The second has IoU 80 / 100: TP 2 at 0.5 … 0.75, six thresholds, and TP 1, FP 1, FN 1 at 0.8 … 0.95.
        (labels((0, 0, 10, 10), (20, 20, 30, 28)), (6 * 1 + 4 / 3) / 10),
        # An object of half the size has IoU 0.5, which does not exceed the first threshold.
        (labels((0, 0, 10, 10), (20, 20, 30, 25)), 1 / 3),
        (labels((0, 0, 10, 10), (20, 20, 30, 26)), (2 * 1 + 8 / 3) / 10),  # 0.6 exceeds 0.5 and 0.55
        # One object cut into two halves: neither matches.
        (labels((0, 0, 10, 10), (20, 20, 30, 25), (20, 25, 30, 30)), 1 / 4),
        (labels((0, 0, 40, 40)), 0.0),  # everything is one object, and no pixel is background
    ],
)
def test_worked_by_hand(predicted, expected):
    assert image_score(TWO, predicted) == pytest.approx(expected)
    assert image_score(predicted, TWO) == pytest.approx(expected)  # FP and FN have the same weight


def test_images_without_objects():
    assert image_score(labels(), labels()) == 1.0
    assert image_score(labels(), labels((1, 1, 2, 2))) == 0.0
    assert image_score(labels((0, 0, 40, 40)), labels((0, 0, 40, 40))) == 1.0


def test_label_image_gives_a_pixel_to_the_highest_score():
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :, :4], masks[1, :, 2:], masks[2, :, 3:4] = True, True, True
    found = label_image(masks, [0.3, 0.9, 0.2])
    assert found[0].tolist() == [1, 1, 2, 2, 2, 2]  # the third keeps no pixel
    assert label_image(masks, [0.5, 0.5, 0.9])[0].tolist() == [1, 1, 1, 3, 2, 2]  # of equals the first
    assert not label_image(masks[:0], []).any()


class Fixed:
    """Returns given detections for the images of a data set, in their order."""

    class_names = None

    def __init__(self, *found):
        self.found = list(found)

    def detect(self, images, score_threshold, max_detections):
        return [
            {name: values[found["scores"] > score_threshold][:max_detections] for name, values in found.items()}
            for found in (self.found.pop(0) for _ in images)
        ]


class Given(data.Dataset):
    """Samples with the masks of label images."""

    class_names = ("nucleus",)

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def read(self, position):
        masks = masks_of(self.images[position])
        image = np.zeros((*masks.shape[1:], 3), np.uint8)
        return {"image": image, "masks": masks, "labels": np.ones(len(masks), np.int32)}


def masks_of(image):
    return image == np.arange(1, image.max() + 1)[:, None, None]


def detections(image, *scores):
    masks = masks_of(image)
    scores = np.array(scores, np.float32)
    return {"boxes": data.mask_boxes(masks), "labels": np.ones(len(masks), np.int32), "scores": scores, "masks": masks}


def test_score_of_a_data_set_is_the_mean_over_images():
    dataset = Given(TWO, labels((5, 5, 9, 9)), labels())
    found = [detections(TWO, 0.9, 0.6), detections(labels(), *[]), detections(labels((1, 1, 3, 3)), 0.4)]
    assert dsb_score(Fixed(*found), dataset) == pytest.approx((1 + 0 + 1) / 3)
    assert dsb_score(Fixed(*found), dataset, 0.7) == pytest.approx((1 / 2 + 0 + 1) / 3)
    several = dsb_score(Fixed(*found), dataset, (0.3, 0.5, 0.7))
    assert several == pytest.approx({0.3: 1 / 3, 0.5: 2 / 3, 0.7: 1 / 2})
    assert dsb_score(Fixed(*found), dataset, limit=1) == 1.0
    assert dsb_score(Fixed(*found), dataset, max_detections=1, limit=1) == pytest.approx(1 / 2)


def test_overlapping_detections_are_cut_at_the_better_one():
    """The worse of two detections of one object keeps a strip, which is a false positive."""
    whole = detections(labels((0, 0, 10, 10)), 0.9)
    twice = {name: np.concatenate([values, values]) for name, values in whole.items()}
    twice["masks"][1] = labels((0, 0, 10, 12)) > 0
    twice["scores"] = np.float32([0.9, 0.8])
    assert dsb_score(Fixed(twice), Given(labels((0, 0, 10, 10)))) == pytest.approx(1 / 2)
    twice["masks"][1] = labels((1, 1, 9, 9)) > 0  # keeps no pixel
    assert dsb_score(Fixed(twice), Given(labels((0, 0, 10, 10)))) == 1.0


def test_many_objects_are_scored_quickly():
    image = np.zeros((1024, 1024), np.int32)
    for number in range(400):
        y, x = divmod(number, 20)
        image[50 * y : 50 * y + 40, 50 * x : 50 * x + 40] = number + 1
    shifted = np.roll(image, 2, axis=1)  # IoU 38 / 42 = 0.905: nine of ten thresholds
    start = time.perf_counter()
    assert image_score(image, shifted) == pytest.approx(0.9)
    assert time.perf_counter() - start < 5
