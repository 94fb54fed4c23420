"""Boundary IoU and boundary AP: worked by hand, and against the definition pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_maskrcnn import evaluation
from keras_maskrcnn.evaluation.boundary import boundary_region, boundary_width


def square(left, top, side, size=(100, 100)):
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_width_is_two_percent_of_the_diagonal():
    assert boundary_width((100, 100)) == 3  # 2.83
    assert boundary_width((480, 640)) == 16
    assert boundary_width((8, 8)) == 1
    assert boundary_width((480, 640), 0.005) == 4


@given(
    mask=arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    width=st.integers(1, 4),
)
def test_region_is_the_pixels_near_a_pixel_outside(mask, width):
    outside = np.pad(~mask, width, constant_values=True)
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected[y, x] = outside[y : y + 2 * width + 1, x : x + 2 * width + 1].any()
    np.testing.assert_array_equal(boundary_region(mask, width), expected)


def test_boundary_iou_by_hand():
    """Frames of 3 pixels of two squares of 20 pixels, one moved by 1 pixel."""
    one, other = square(10, 10, 20), square(11, 10, 20)
    frame = 20 * 20 - 14 * 14
    common = 2 * 3 * 19 + 14 * (2 + 2)  # two rows of 19 x 3, and two columns of 2 x 14
    assert evaluation.boundary_iou(one, one) == 1
    assert evaluation.boundary_iou(one, other) == pytest.approx(common / (2 * frame - common))
    assert evaluation.boundary_iou(one, square(60, 60, 20)) == 0
    assert evaluation.boundary_iou(one & False, one & False) == 0


def test_the_border_of_the_image_is_a_boundary():
    whole = np.ones((100, 100), bool)
    assert boundary_region(whole, 3).sum() == 100 * 100 - 94 * 94


def test_boundary_ap_counts_thresholds_up_to_the_smaller_overlap(collected):
    big, moved = (10, 10, 70, 70), (12, 10, 72, 70)
    masks = square(10, 10, 60), square(12, 10, 60)
    boundary = evaluation.boundary_iou(*masks)
    mask = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert boundary < 0.7 < 0.9 < mask
    found = collected(([(1, big)], [(1, moved, 0.9)]))
    expected = np.mean(np.arange(50, 100, 5) / 100 <= boundary)
    assert evaluation.boundary_scores(found)["boundary_AP"] == pytest.approx(expected)
    assert evaluation.score_detections(found.ground_truth, found.detections, ("segm",))["segm_AP"] == pytest.approx(0.9)


def test_small_objects_have_equal_mask_and_boundary_ap(collected):
    """A mask that is nowhere thicker than twice the width is its own boundary region."""
    found = collected(([(1, (5, 5, 10, 10))], [(1, (5, 6, 10, 11), 0.9)]))
    scores = evaluation.score_detections(found.ground_truth, found.detections, ("segm", "boundary"))
    assert scores["boundary_AP"] == scores["segm_AP"] > 0


def test_boundary_ap_is_at_most_mask_ap(collected, random_images):
    found = collected(*random_images(3, count=30))
    scores = evaluation.score_detections(found.ground_truth, found.detections, ("segm", "boundary"))
    assert 0 < scores["boundary_AP"] < scores["segm_AP"]
    assert scores["per_class"]["cat"]["boundary_AP"] <= scores["per_class"]["cat"]["segm_AP"]


def test_a_detection_inside_a_crowd_is_not_counted(collected):
    found = collected(([(1, (0, 0, 20, 20)), (1, (30, 30, 95, 95), "crowd")], [(1, (50, 50, 60, 60), 0.9)]))
    more = [*found.detections, {**found.detections[0], **_region((0, 0, 20, 20)), "score": 0.5}]
    assert evaluation.score_detections(found.ground_truth, more, ("boundary",))["boundary_AP"] == pytest.approx(1)


def _region(box):
    x1, y1, x2, y2 = box
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": evaluation.encode_mask(square(x1, y1, x2 - x1))}


def test_without_masks(collected):
    found = collected(([(1, (0, 0, 20, 20))], []))
    boxes = evaluation.Collected(found.ground_truth, [], ("bbox",))
    with pytest.raises(ValueError, match="kind must be one of"):
        evaluation.boundary_scores(boxes)
    assert evaluation.boundary_scores(found)["boundary_AP"] == 0
