"""The choice of the proposals, on cases computed by hand."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.heads.proposals import select_proposals


def proposals(logits, deltas, anchors, sizes, pre_nms=10, post_nms=10, nms_iou=0.7, min_size=1.0):
    logits, deltas, anchors = ([np.array(x, "float32") for x in levels] for levels in (logits, deltas, anchors))
    found = select_proposals(logits, deltas, anchors, np.array(sizes, "float32"), pre_nms, post_nms, nms_iou, min_size)
    boxes, scores, valid = map(np.asarray, found)
    assert (boxes.dtype, scores.dtype, valid.dtype) == ("float32", "float32", "bool")
    assert not boxes[~valid].any() and not scores[~valid].any()
    assert all((np.diff(row[kept]) <= 0).all() for row, kept in zip(scores, valid, strict=True))
    return boxes, valid


FINE = [[0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50]]  # IoU of the first two: 90 / 110
COARSE = [[0, 0, 10, 10], [20, 20, 60, 60]]


def test_best_first_and_suppressed_within_a_level_only():
    logits = [[[2, 3, 1]], [[2.5, 0]]]
    boxes, valid = proposals(logits, [np.zeros((1, 3, 4)), np.zeros((1, 2, 4))], [FINE, COARSE], [[100, 100]])
    # 3: FINE[1]; it suppresses FINE[0], but not COARSE[0] (2.5), the same box on another level.
    assert valid.tolist() == [[True] * 4 + [False]]
    np.testing.assert_allclose(boxes[0, :4], [FINE[1], COARSE[0], FINE[2], COARSE[1]], atol=1e-4)


def test_pre_nms_limits_each_level_and_post_nms_the_image():
    logits = [[[2, 3, 1]], [[2.5, 0]]]
    deltas = [np.zeros((1, 3, 4)), np.zeros((1, 2, 4))]
    boxes, valid = proposals(logits, deltas, [FINE, COARSE], [[100, 100]], pre_nms=1)
    assert valid.tolist() == [[True, True]]
    np.testing.assert_allclose(boxes[0], [FINE[1], COARSE[0]], atol=1e-4)
    boxes, valid = proposals(logits, deltas, [FINE, COARSE], [[100, 100]], post_nms=3)
    np.testing.assert_allclose(boxes[0], [FINE[1], COARSE[0], FINE[2]], atol=1e-4)


def test_boxes_are_decoded_clipped_to_their_image_and_dropped_when_small():
    # Anchor [40, 40, 50, 50], moved right by one width and doubled: centre (55, 45), 20 × 20.
    deltas = np.array([[[1, 0, math.log(2), math.log(2)]]] * 2)
    logits = np.zeros((2, 1))
    boxes, valid = proposals([logits], [deltas], [[FINE[2]]], [[50, 60], [100, 46]], min_size=1.5)
    np.testing.assert_allclose(boxes[0, 0], [45, 35, 60, 50], rtol=1e-5)  # the first image is 60 wide and 50 high
    assert valid.tolist() == [[True], [False]]  # in the second only one pixel of width is left


def crowded(rows, seed, images=2):
    """Levels of `rows` anchors around a few places, with many equal logits: logits, deltas, anchors."""
    rng = np.random.default_rng(seed)
    logits = [rng.integers(-3, 3, (images, n)).astype("float32") / 2 for n in rows]
    deltas = [rng.normal(0, 0.1, (images, n, 4)).astype("float32") for n in rows]
    corners = [rng.choice([0.0, 3.0, 40.0], (n, 2)) + rng.uniform(0, 2, (n, 2)) for n in rows]
    return logits, deltas, [np.concatenate([c, c + 10], axis=1).astype("float32") for c in corners]


@pytest.mark.parametrize("post_nms", [1, 7, 40, 500])
@pytest.mark.parametrize("rows", [(30,), (60, 25, 1), (40, 0, 9)])
def test_proposals_of_static_shapes_equal_those_of_dynamic_ones(rows, post_nms):
    sizes = np.array([[45, 60], [100, 46]], "float32")
    for seed in range(3):
        inputs = crowded(rows, seed)
        found = []
        for static in (False, True):
            with backend.static_shapes_scope(static):
                found.append([np.asarray(x) for x in select_proposals(*inputs, sizes, 50, post_nms, 0.5, 2.0)])
        assert found[0][2].any()
        for dynamic, static in zip(*found, strict=True):
            np.testing.assert_array_equal(dynamic, static)


def test_static_shapes_compare_boxes_within_a_level_only():
    """The memory of XLA's NMS grows with the square of the rows of one level, not of all levels."""
    logits, deltas, anchors = crowded((60, 50, 40), seed=0)
    sizes = np.array([[45, 60], [100, 46]], "float32")
    run = tf.function(lambda *x: select_proposals(x[:3], x[3:], anchors, sizes, 60, 50, 0.5, 1.0), jit_compile=True)
    program = run.experimental_get_compiler_ir(*logits, *deltas)(stage="hlo")
    shapes = [tuple(map(int, shape.split(","))) for shape in re.findall(r"\[([\d,]+)\]", program)]
    assert (2, 60, 60) in shapes
    assert max(map(math.prod, shapes)) == 2 * 60 * 60
