"""Everything in `ops` and `layers` gives equal results under XLA on the CPU and eagerly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_maskrcnn.heads import anchors as anchor_heads
from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.detection import Limits, select_detections
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.mask import Deconvolution2x, MaskHead
from keras_maskrcnn.heads.proposals import select_proposals
from keras_maskrcnn.heads.rpn import RPNHead
from keras_maskrcnn.layers import RoIAlign, RoIPool, RoIWarp
from keras_maskrcnn.layers.fpn import FPN
from keras_maskrcnn.layers.norm import norm
from keras_maskrcnn.models.images import _inside
from keras_maskrcnn.ops import boxes, gather, keypoints, losses, maps, masks, matching, sampling

RNG = np.random.default_rng(0)


def some_boxes(*shape, extent=90):
    corner = RNG.uniform(0, extent, (*shape, 2))
    return np.concatenate([corner, corner + RNG.uniform(2, 40, (*shape, 2))], axis=-1).astype("float32")


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


FIRST, SECOND, TRUTH = some_boxes(2, 7), some_boxes(2, 7), some_boxes(2, 5)
SIZES = np.array([[100, 80], [64, 128]], "float32")
VALID = np.array([[True] * 4 + [False], [True] * 3 + [False] * 2])
CROWD = np.array([[False, False, False, True, False], [False] * 5])
ANCHORS = some_boxes(400)
USABLE = RNG.uniform(size=(2, 7)) < 0.6
# Fewer candidates of a kind than slots: the random numbers affect the order of the sample, not its members.
ROLE = RNG.choice([-1, 0, 1], size=(2, 12), p=[0.4, 0.4, 0.2]).astype("int32")
PYRAMID = {"C2": normal(2, 16, 24, 3), "C3": normal(2, 8, 12, 4), "C4": normal(2, 4, 6, 5)}


def drawn(role):
    """A mask of the sampled candidates, and the roles in their slots."""
    index, valid = sampling.sample(role, 12, 1.0, 3)
    hot = ops.one_hot(index, 12) * ops.cast(valid, "float32")[..., None]
    return ops.sum(hot, axis=1), ops.where(valid, gather.take_rows(role[..., None], index)[..., 0], -1), valid


def roles(anchors, truth):
    """Roles of anchors; those that cross the border of their image are ignored."""
    truth = {"boxes": truth, "crowd": CROWD, "valid": VALID}
    sampling = anchor_heads.AnchorSampling(cross_boundary="ignore")
    return anchor_heads.assign_anchors(anchors, truth, sampling, SIZES)


def proposed(logits, deltas):
    return select_proposals(
        [logits[:, :40], logits[:, 40:]], [deltas[:, :40], deltas[:, 40:]], [ANCHORS[:40], ANCHORS[40:60]], SIZES, 30,
        25, 0.7, 1.0,
    )  # fmt: skip


def detected(logits, refined):
    probabilities = ops.softmax(logits, axis=-1)
    found = select_detections(probabilities, refined, np.ones((2, 7), bool), SIZES, Limits(0.05, 0.5, 8), 20)
    return [found[name] for name in sorted(found)]


OPS = {
    "area": (boxes.area, FIRST),
    "enlarge": (lambda v: maps.enlarge(v, 4), normal(2, 3, 5, 2)),
    "class_maps": (lambda v: maps.class_maps(v, ops.ones(2) / 3, (8, 14)), normal(2, 3, 5, 2)),
    "iou": (boxes.iou, FIRST, TRUTH),
    "encode": (lambda a, b: boxes.encode(a, b, (10, 10, 5, 5)), FIRST, SECOND),
    "decode": (lambda d, b: boxes.decode(d, b, (10, 10, 5, 5)), normal(2, 7, 4), FIRST),
    "clip": (boxes.clip, FIRST, SIZES),
    "larger_than": (lambda b: boxes.larger_than(b, 20.0), FIRST),
    "match": (lambda *a: matching.match(*a, 0.5, 0.3, keep_best=True), ANCHORS, TRUTH, VALID, CROWD),
    "match_usable": (
        lambda *a: matching.match(*a[:4], 0.5, 0.3, True, usable=a[4]),
        FIRST,
        TRUTH,
        VALID,
        CROWD,
        USABLE,
    ),
    "anchor_roles": (roles, ANCHORS, TRUTH),
    "match_regions": (lambda *a: matching.match(*a, 0.5, 0.5), FIRST, TRUTH, VALID, CROWD),
    "sample": (drawn, ROLE),
    "rows": (gather.take_rows, FIRST, np.array([[3, 0, 3], [6, 1, 2]], "int32")),
    "masked_mean": (losses.masked_mean, normal(2, 5), VALID),
    "binary_cross_entropy": (losses.binary_cross_entropy, normal(9) * 30, RNG.uniform(size=9).astype("float32")),
    "softmax_cross_entropy": (losses.softmax_cross_entropy, normal(2, 5, 3), RNG.integers(0, 3, (2, 5))),
    "smooth_l1": (lambda e: losses.smooth_l1(e, 0.1), normal(30)),
    "mask_targets": (
        lambda m, b, r: masks.mask_targets(m, b, r, 6),
        RNG.integers(0, 256, (7, 10, 10)).astype("uint8"),
        FIRST[0],
        np.concatenate([FIRST[0, :4] + 2, np.zeros((3, 4), "float32")]),
    ),
    "heatmap_targets": (
        lambda p, r: keypoints.heatmap_targets(p, r, 8),
        np.concatenate(
            [FIRST[0, :, None, :2] + np.float32([[0, 0], [5, 9], [-2, 4]]), np.ones((7, 3, 1), "float32")], 2
        ),
        FIRST[0],
    ),
    "inside": (lambda s: _inside(20, 30, s / 5), SIZES),
    "select_proposals": (proposed, normal(2, 60), normal(2, 60, 4) / 5),
    "select_detections": (detected, normal(2, 7, 4) * 2, some_boxes(2, 7, 4)),
}

LABELS = np.array([0, 2, 1], "int32")
LAYERS = {
    "batch": (lambda d: norm("batch", "n", d), PYRAMID["C2"]),
    "frozen_batch": (lambda d: norm("frozen_batch", "n", d), PYRAMID["C2"]),
    "group": (lambda d: norm("group", "n", d), PYRAMID["C2"]),
    "fpn": (lambda d: FPN(6, dtype=d), PYRAMID),
    "rpn": (lambda d: RPNHead((8, 16), dtype=d), [PYRAMID["C2"], PYRAMID["C2"][:, ::2, ::2]]),
    "rpn_norm": (lambda d: RPNHead((8, 16), {"norm": "group"}, dtype=d), [PYRAMID["C2"], PYRAMID["C2"][:, ::2, ::2]]),
    "box_head": (lambda d: BoxHead(2, {"width": 8}, dtype=d), normal(3, 4, 4, 5)),
    "class_agnostic_box_head": (
        lambda d: BoxHead(2, {"width": 8, "class_agnostic": True}, dtype=d),
        normal(3, 4, 4, 5),
    ),
    "deconvolution": (lambda d: Deconvolution2x(3, dtype=d), normal(3, 4, 4, 5)),
    "mask_head": (lambda d: MaskHead(2, {"width": 6, "depth": 1}, dtype=d), normal(3, 4, 4, 5), LABELS),
    "mask_softmax": (
        lambda d: MaskHead(2, {"width": 6, "depth": 1, "loss": "softmax"}, dtype=d),
        normal(3, 4, 4, 5),
        LABELS,
    ),
    "mask_mlp": (lambda d: MaskHead(2, {"width": 6, "kind": "mlp"}, dtype=d), normal(3, 4, 4, 5), LABELS),
    "roi_align": (lambda d: RoIAlign(3, (4, 8), dtype=d), [normal(2, 16, 24, 3), normal(2, 8, 12, 3)], FIRST),
    "keypoint_head": (lambda d: KeypointHead(3, {"width": 6, "depth": 1}, dtype=d), normal(3, 4, 4, 5), LABELS),
    "roi_warp": (
        lambda d: RoIWarp(3, (4, 8), reduce="max", dtype=d),
        [normal(2, 16, 24, 3), normal(2, 8, 12, 3)],
        FIRST,
    ),
    "roi_pool": (lambda d: RoIPool(3, (4, 8), dtype=d), [normal(2, 16, 24, 3), normal(2, 8, 12, 3)], FIRST),
}


def compare(function, inputs, tolerance=1e-5):
    inputs = keras.tree.map_structure(tf.constant, inputs)
    expected = keras.tree.flatten(function(*inputs))
    found = keras.tree.flatten(tf.function(function, jit_compile=True)(*inputs))
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == reference.dtype and value.shape == reference.shape
        if value.dtype.is_floating:
            scale = max(np.abs(tf.cast(reference, "float32")).max(initial=0), 1)
            np.testing.assert_allclose(tf.cast(value, "float32"), tf.cast(reference, "float32"), atol=tolerance * scale)
        else:
            np.testing.assert_array_equal(value, reference)


@pytest.mark.parametrize("name", OPS)
def test_op(name):
    function, *inputs = OPS[name]
    compare(function, inputs)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, dtype):
    make, *inputs = LAYERS[name]
    layer = make(dtype)
    layer(*inputs)  # builds the weights outside the compiled function
    compare(layer, inputs, 1e-5 if dtype == "float32" else 0.03)


def test_batch_norm_in_training_moves_its_averages_under_xla():
    layers = [norm("batch", "a"), norm("batch", "b")]
    x = tf.constant(PYRAMID["C2"][:, :3, :3])  # few values, so that the unbiased variance differs from the biased one
    for layer in layers:
        layer.build(x.shape)
    expected = layers[0](x, training=True)
    found = tf.function(lambda x: layers[1](x, training=True), jit_compile=True)(x)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for value, reference in zip(layers[1].weights, layers[0].weights, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-6)


def test_all_anchors_of_a_best_overlap_are_kept_under_xla():
    """XLA may compute an overlap twice; if the results differed in a bit, no anchor would equal the maximum."""
    rng = np.random.default_rng(8)
    corner = rng.uniform(0, 500, (2000, 2))
    anchors = np.concatenate([corner, corner + rng.uniform(5, 200, (2000, 2))], axis=-1).astype("float32")
    objects = np.concatenate([corner[:60] + 3, corner[:60] + rng.uniform(4, 250, (60, 2)) + 3], axis=-1)
    objects = objects.astype("float32").reshape(2, 30, 4)
    yes = np.ones((2, 30), bool)
    compare(lambda *a: matching.match(*a, 0.9, 0.3, keep_best=True), (anchors, objects, yes, ~yes))
