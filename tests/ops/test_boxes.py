"""Areas, overlaps, regression targets, clipping: hand-computed values and properties."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn.ops import boxes as box_ops

side = st.floats(0.5, 300, width=32)
place = st.floats(-500, 500, width=32)
box = st.tuples(place, place, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
some_boxes = st.lists(box, min_size=1, max_size=6).map(lambda rows: np.array(rows, "float32"))


def numpy(values):
    return keras.ops.convert_to_numpy(values)


def test_area_by_hand():
    boxes = np.array([[1, 2, 4, 6], [0, 0, 0, 5], [3, 3, 1, 1], [3, 0, 1, 2]], "float32")
    # 3 × 4; no width; both sides negative (the product of the sides would be +4); one side negative.
    np.testing.assert_array_equal(numpy(box_ops.area(boxes)), [12, 0, 0, 0])


def test_intersection_and_iou_by_hand():
    first = np.array([[0, 0, 4, 4], [10, 10, 12, 12]], "float32")
    second = np.array([[2, 1, 6, 3], [4, 0, 8, 4], [1, 1, 2, 2]], "float32")
    # [0,0,4,4] and [2,1,6,3] share 2 × 2 of 16 + 8 - 4 = 20; boxes that touch at x = 4 share nothing; 1 of 16.
    np.testing.assert_array_equal(numpy(box_ops.intersection(first, second)), [[4, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(numpy(box_ops.iou(first, second)), [[0.2, 0, 1 / 16], [0, 0, 0]], rtol=1e-6)


def test_boxes_without_area_overlap_nothing_and_give_no_nan():
    empty = np.array([[0, 0, 0, 0], [5, 5, 5, 9], [4, 4, 2, 2]], "float32")
    np.testing.assert_array_equal(numpy(box_ops.iou(empty, empty)), np.zeros((3, 3)))


def test_leading_dimensions_broadcast():
    anchors = np.array([[0, 0, 2, 2], [0, 0, 4, 4]], "float32")
    truth = np.array([[[0, 0, 2, 2]], [[0, 0, 4, 2]], [[9, 9, 9.5, 9.5]]], "float32")
    expected = [[[1, 0.25]], [[0.5, 0.5]], [[0, 0]]]
    np.testing.assert_allclose(numpy(box_ops.iou(truth, anchors)), expected)


@settings(max_examples=40, deadline=None)
@given(first=some_boxes, second=some_boxes)
def test_iou_is_symmetric_bounded_and_one_for_itself(first, second):
    overlap = numpy(box_ops.iou(first, second))
    np.testing.assert_array_equal(overlap, numpy(box_ops.iou(second, first)).T)
    assert (overlap >= 0).all() and (overlap <= 1 + 1e-5).all()
    np.testing.assert_allclose(np.diag(numpy(box_ops.iou(first, first))), 1, atol=1e-5)
    np.testing.assert_allclose(overlap, [[slow_iou(a, b) for b in second] for a in first], atol=1e-4)


def slow_iou(a, b):
    a, b = a.astype("float64"), b.astype("float64")
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_encode_by_hand():
    anchor = np.array([[10, 20, 30, 60]], "float32")  # centre (20, 40), 20 × 40
    truth = np.array([[20, 30, 60, 50]], "float32")  # centre (40, 40), 40 × 20
    # tx = 20 / 20, ty = 0 / 40, tw = log 2, th = log 1/2.
    expected = np.array([[1, 0, math.log(2), -math.log(2)]])
    np.testing.assert_allclose(numpy(box_ops.encode(truth, anchor)), expected, atol=1e-6)
    weighted = numpy(box_ops.encode(truth, anchor, (10, 10, 5, 5)))
    np.testing.assert_allclose(weighted, expected * [10, 10, 5, 5], atol=1e-5)


def test_decode_by_hand():
    anchor = np.array([[10, 20, 30, 60]], "float32")
    deltas = np.array([[0.5, -0.25, math.log(2), 0]], "float32")
    # Centre (20 + 0.5·20, 40 - 0.25·40) = (30, 30); size 40 × 40.
    np.testing.assert_allclose(numpy(box_ops.decode(deltas, anchor)), [[10, 10, 50, 50]], rtol=1e-6)
    np.testing.assert_allclose(numpy(box_ops.decode(deltas * 2, anchor, (2, 2, 2, 2))), [[10, 10, 50, 50]], rtol=1e-6)


def test_decode_caps_the_size_at_a_factor_of_1000_over_16():
    decoded = numpy(box_ops.decode(np.array([[0, 0, 50, 1000]], "float32"), np.array([[0, 0, 16, 32]], "float32")))
    np.testing.assert_allclose(decoded[0, 2:] - decoded[0, :2], [1000, 2000], rtol=1e-5)


def test_decode_broadcasts_the_reference_over_classes():
    deltas = np.zeros((2, 3, 4, 4), "float32")
    reference = np.arange(24, dtype="float32").reshape(2, 3, 4).cumsum(-1)
    decoded = numpy(box_ops.decode(deltas, reference[:, :, None]))
    np.testing.assert_allclose(decoded, np.repeat(reference[:, :, None], 4, axis=2), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(box, box), min_size=1, max_size=6), st.sampled_from([(1, 1, 1, 1), (10, 10, 5, 5)]))
def test_decode_is_the_inverse_of_encode(pairs, weights):
    boxes, reference = (np.array(rows, "float32") for rows in zip(*pairs, strict=True))
    # Above the cap `decode` is not the inverse.
    grow = np.max((boxes[:, 2:] - boxes[:, :2]) / (reference[:, 2:] - reference[:, :2]), axis=1)
    boxes, reference = boxes[grow < 60], reference[grow < 60]
    back = numpy(box_ops.decode(box_ops.encode(boxes, reference, weights), reference, weights))
    np.testing.assert_allclose(back, boxes, atol=2e-2)


def test_padding_gives_finite_values_and_gradients():
    boxes = tf.zeros((1, 4))
    deltas = tf.zeros((1, 4))
    with tf.GradientTape() as tape:
        tape.watch([boxes, deltas])
        total = tf.reduce_sum(box_ops.encode(boxes, tf.zeros((1, 4)))) + tf.reduce_sum(
            box_ops.decode(deltas, tf.zeros((1, 4)))
        )
    assert np.isfinite(total)
    assert all(np.isfinite(g).all() for g in tape.gradient(total, [boxes, deltas]))


def test_clip_uses_height_for_y_and_width_for_x():
    boxes = np.array([[[-5, -6, 500, 600], [1, 2, 3, 4]]] * 2, "float32")
    sizes = np.array([[100, 200], [50, 2.5]], "float32")
    expected = [[[0, 0, 200, 100], [1, 2, 3, 4]], [[0, 0, 2.5, 50], [1, 2, 2.5, 4]]]
    np.testing.assert_array_equal(numpy(box_ops.clip(boxes, sizes)), expected)
    by_class = numpy(box_ops.clip(boxes[:, :, None], sizes))
    np.testing.assert_array_equal(by_class[:, :, 0], expected)


def test_clipped_boxes_outside_have_no_area():
    clipped = box_ops.clip(np.array([[[300, 10, 400, 20], [-9, -9, -1, -1]]], "float32"), np.array([[100.0, 200.0]]))
    np.testing.assert_array_equal(numpy(box_ops.area(clipped)), [[0, 0]])


@pytest.mark.parametrize(
    ("limit", "expected"), [(1.0, [True, True, False]), (1.25, [True, False, False]), (0.0, [True, True, True])]
)
def test_larger_than_requires_both_sides_to_reach_the_minimum(limit, expected):
    boxes = np.array([[0, 0, 2, 1.5], [0, 0, 2, 1], [0, 0, 0.25, 9]], "float32")
    assert numpy(box_ops.larger_than(boxes, limit)).tolist() == expected


def test_a_box_without_area_is_never_large_enough():
    assert not numpy(box_ops.larger_than(np.array([[3, 3, 3, 9]], "float32"), 0.0)).any()
