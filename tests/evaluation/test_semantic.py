"""Scores of label maps: worked by hand, and against the definition pixel by pixel."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_maskrcnn import data, evaluation
from keras_maskrcnn.evaluation.boundary import dilated, inner_boundary
from keras_maskrcnn.evaluation.semantic import boundary_f

MAPS = arrays.arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 255]))


def test_figures_by_hand():
    scores = evaluation.SemanticScores(["background", "a", "b", "absent"])
    truth = np.array([[0, 0, 1, 1], [0, 255, 1, 2]], np.uint8)
    found = np.array([[0, 1, 1, 1], [0, 2, 0, 1]], np.uint8)
    scores.add(truth, found)
    np.testing.assert_array_equal(scores.confusion, [[2, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0] * 4])
    result = scores.result()
    assert result["pixel_accuracy"] == pytest.approx(4 / 7)
    assert result["mean_accuracy"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert result["mean_IoU"] == pytest.approx((2 / 4 + 2 / 5 + 0) / 3)
    assert result["per_class"]["b"] == {"IoU": 0, "accuracy": 0, "boundary_F": 0}
    assert math.isnan(result["per_class"]["absent"]["IoU"])
    assert evaluation.for_json(result)["per_class"]["absent"]["IoU"] is None
    json.dumps(evaluation.for_json(result))
    printed = evaluation.format_scores(result)
    assert "mean IoU" in printed and "0.300" in printed and "absent" in printed


@given(truth=MAPS, found=arrays.arrays(np.uint8, (5, 6), elements=st.integers(0, 2)))
def test_confusion_is_counted_pixel_by_pixel(truth, found):
    scores = evaluation.SemanticScores("abc")
    scores.add(truth, found)
    for true in range(3):
        for ours in range(3):
            assert scores.confusion[true, ours] == ((truth == true) & (found == ours)).sum()


def test_images_are_summed_before_the_ratio():
    scores = evaluation.SemanticScores("ab")
    scores.add(np.ones((1, 3), np.uint8), np.array([[1, 1, 0]], np.uint8))
    scores.add(np.ones((1, 1), np.uint8), np.ones((1, 1), np.uint8))
    assert scores.result()["per_class"]["b"]["IoU"] == pytest.approx(3 / 4)


@given(mask=arrays.arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8))), width=st.integers(1, 3))
def test_dilation_is_the_square_around_each_pixel(mask, width):
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1] = True
    np.testing.assert_array_equal(dilated(mask, width), expected)


def test_boundaries_leave_out_the_border_and_unknown_pixels():
    mask = np.zeros((5, 6), bool)
    mask[:, :3] = True
    known = np.ones_like(mask)
    np.testing.assert_array_equal(np.flatnonzero(inner_boundary(mask, known).all(axis=0)), [2])
    assert inner_boundary(mask, known).sum() == 5
    known[:, 3] = False
    assert not inner_boundary(mask, known).any()


def test_boundary_f_by_hand():
    known = np.ones((100, 100), bool)  # near is 1 pixel
    truth = np.zeros_like(known)
    truth[:, :50] = True
    for shift, expected in ((0, 1), (1, 1), (2, 0)):
        assert boundary_f(truth, np.roll(truth, shift, axis=1) | truth, known) == expected
    half = truth.copy()
    half[50:, :60] = True  # the rows from 50 on have their boundary elsewhere, and the corner has one of its own
    one, two = inner_boundary(truth, known), inner_boundary(half, known)
    precision, recall = (two & dilated(one, 1)).sum() / two.sum(), (one & dilated(two, 1)).sum() / one.sum()
    assert boundary_f(truth, half, known) == pytest.approx(2 * precision * recall / (precision + recall))
    assert 0.4 < boundary_f(truth, half, known) < 0.6
    assert boundary_f(known, known, known) == 1 and boundary_f(truth, known, known) == 0


class Oracle:
    """Returns the map of the sample that an image belongs to."""

    def __init__(self, dataset, class_names):
        self.schema, self.class_names, self.num_classes = (), class_names, len(class_names)
        self.known = {sample["image"].tobytes(): sample["semantic"] for sample in dataset}

    def detect_each(self, images, **options):
        for image in images:
            semantic = self.known[image.tobytes()]
            yield {"semantic": np.where(semantic == 255, 0, semantic)}


def test_the_truth_has_the_score_one():
    dataset = data.SemanticMasks(data.Shapes(3, image_size=(48, 40)))
    result = evaluation.semantic_scores(Oracle(dataset, list(dataset.class_names)), dataset)
    assert all(result[name] == 1 for name in ("mean_IoU", "pixel_accuracy", "mean_accuracy", "boundary_F"))
    scenes = data.Scenes(2, image_size=(48, 40))
    result = evaluation.scores(Oracle(scenes, ["sky", "ground", "water"]), scenes)
    assert result["mean_IoU"] == 1 and list(result["per_class"]) == ["things", "sky", "ground", "water"]


def test_errors():
    scores = evaluation.SemanticScores("ab")
    with pytest.raises(ValueError, match=r"the map has \(1, 2\) pixels, the ground truth \(2, 1\)"):
        scores.add(np.zeros((2, 1), np.uint8), np.zeros((1, 2), np.uint8))
    with pytest.raises(ValueError, match="label 5 is not among the 2 of the scores"):
        scores.add(np.zeros((1, 1), np.uint8), np.full((1, 1), 5, np.uint8))
