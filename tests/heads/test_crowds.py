"""Crowd regions are neither objects nor background, in the RPN and in the box head."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.proposals import Proposed
from keras_maskrcnn.heads.rpn import RPNHead
from keras_maskrcnn.heads.sampled_regions import RegionSampling, sample_regions

CANVAS, STRIDE = (64, 64), 16
SIZES = np.array([CANVAS, CANVAS], "float32")
LEFT_HALF = [0, 0, 32, 64]
EVERYTHING = {"size": 1000, "positive_fraction": 1.0}


def truth(crowd):
    """Two images with one box each, the left half; a crowd region in the images where `crowd` is True."""
    return {
        "boxes": tf.constant(np.tile(np.float32(LEFT_HALF), (2, 1, 1))),
        "labels": tf.ones((2, 1), tf.int32),
        "crowd": tf.constant(np.array(crowd)[:, None]),
        "valid": tf.ones((2, 1), bool),
    }


def covered(boxes):
    """Share of each box inside the left half."""
    width = np.maximum(np.minimum(boxes[..., 2], 32) - np.maximum(boxes[..., 0], 0), 0)
    height = np.maximum(np.minimum(boxes[..., 3], 64) - np.maximum(boxes[..., 1], 0), 0)
    return width * height / ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def rpn_gradients(crowd, **sampling):
    """Anchors, losses, and the gradients of their sum by the objectness logits `[2, A]`.

    The 16 anchors of 24 × 24 pixels are centred in cells of 16 × 16: a quarter of them has 0, 0.17, 0.83 and 1 of its
    area in the left half of the image.
    """
    anchors = {"sizes": ((24,),), "ratios": (1.0,), "offset": 0.5}
    head = RPNHead((STRIDE,), anchors=anchors, sampling={**EVERYTHING, **sampling})
    anchors = head.anchors.boxes(CANVAS, head.strides)
    logits, deltas = tf.zeros((2, len(anchors[0]))), tf.zeros((2, len(anchors[0]), 4))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = head.losses([logits], [deltas], anchors, truth(crowd), SIZES, 3)
        total = sum(losses.values())
    return anchors[0], {name: float(value) for name, value in losses.items()}, tape.gradient(total, logits).numpy()


def test_rpn_learns_no_background_inside_a_crowd():
    anchors, losses, gradients = rpn_gradients([True, True])
    inside = covered(anchors) >= 0.5
    assert inside.sum() == 8
    assert (gradients[:, inside] == 0).all()
    # The derivative of the cross entropy of a negative is σ(0); it is divided by the 2 · 8 sampled anchors.
    np.testing.assert_allclose(gradients[:, ~inside], 0.5 / 16, rtol=1e-6)
    assert losses["rpn_class_loss"] == pytest.approx(np.log(2)) and losses["rpn_box_loss"] == 0


def test_a_crowd_that_covers_the_image_gives_a_loss_of_zero():
    head = RPNHead((STRIDE,), anchors={"sizes": ((16,),)}, sampling=EVERYTHING)
    anchors = head.anchors.boxes(CANVAS, head.strides)
    count = len(anchors[0])
    whole = {**truth([True, True]), "boxes": tf.constant(np.tile(np.float32([-64, -64, 128, 128]), (2, 1, 1)))}
    losses = head.losses([tf.ones((2, count))], [tf.ones((2, count, 4))], anchors, whole, SIZES, 3)
    assert losses["rpn_class_loss"] == losses["rpn_box_loss"] == 0


def test_without_the_option_a_crowd_is_background():
    gradients = rpn_gradients([True, True], crowd_cover=None)[2]
    np.testing.assert_allclose(gradients, 0.5 / gradients.size, rtol=1e-6)


def test_a_crowd_in_one_image_changes_nothing_in_the_other():
    roles = [np.sign(rpn_gradients([crowd, False])[2][1]) for crowd in (True, False)]
    np.testing.assert_array_equal(*roles)
    assert (roles[0] < 0).any() and (roles[0] > 0).any()


def proposals():
    """Two images with the same proposals: inside the crowd, half inside, one fifth inside, outside."""
    boxes = np.float32([[4, 4, 20, 20], [22, 10, 42, 30], [28, 10, 48, 30], [40, 40, 60, 60]])
    return boxes, Proposed(tf.constant(np.stack([boxes, boxes])), tf.ones((2, 4), bool))


@pytest.mark.parametrize(
    ("options", "sampled"),
    [
        ({}, [False, False, True, True]),
        ({"crowd_cover": 0.6}, [False, True, True, True]),
        ({"crowd_cover": None}, [True] * 4),
    ],
)
def test_box_head_samples_no_background_inside_a_crowd(options, sampled):
    boxes, proposed = proposals()
    regions = sample_regions(proposed, truth([True, True]), RegionSampling(8, **options), 3)
    valid, found, label = (keras.ops.convert_to_numpy(v) for v in (regions.valid, regions.boxes, regions.label))
    for image in range(2):
        chosen = [any((box == other).all() for other in found[image][valid[image]]) for box in boxes]
        assert chosen == sampled and valid[image].sum() == sum(sampled)
    assert (label == 0).all()  # the crowd is no positive either, and its box no candidate


def test_class_loss_has_no_gradient_inside_a_crowd():
    proposed = proposals()[1]
    head = BoxHead(2, {"pool": 2, "hidden": 1, "width": 4}, {"size": 8})
    head.connect((STRIDE,), 3)
    level = tf.random.stateless_normal((2, 4, 4, 3), (0, 1))
    with tf.GradientTape() as tape:
        tape.watch(level)
        regions, losses = head.losses([level], Proposed(*(v[:, :1] for v in proposed)), truth([True, True]), 3)
        total = losses["class_loss"] + losses["box_loss"]
    assert float(total) == 0 and not keras.ops.convert_to_numpy(regions.valid).any()
    assert np.abs(tape.gradient(total, level)).max() == 0
