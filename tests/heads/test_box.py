"""The box head: layout of its outputs, weights, dtypes, gradients."""

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.proposals import Proposed
from keras_maskrcnn.heads.sampled_regions import SampledRegions


def regions(count=3, pool=2, channels=5):
    return np.random.default_rng(0).normal(size=(count, pool, pool, channels)).astype("float32")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_shapes_and_float32_outputs(policy):
    head = BoxHead(4, {"width": 8}, dtype=policy)
    logits, deltas = head(regions())
    assert logits.shape == (3, 5) and deltas.shape == (3, 5, 4)
    assert logits.dtype == deltas.dtype == tf.float32
    assert head.hidden[0].compute_dtype == policy.removeprefix("mixed_")


def test_weights_of_the_paper():
    head = BoxHead(80)
    head.build((None, 7, 7, 256))
    # 7·7·256 → 1024 → 1024 → 81 scores and 324 deltas.
    expected = (7 * 7 * 256 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 81 + 81) + (1024 * 324 + 324)
    assert head.count_params() == expected
    assert abs(np.std(head.classes.kernel) - 0.01) < 5e-4
    assert abs(np.std(head.deltas.kernel) - 0.001) < 5e-5


def test_deltas_of_a_class_are_four_neighbours():
    head = BoxHead(2, {"width": 3})
    head.build((None, 2, 2, 5))
    head.deltas.set_weights([np.zeros((3, 12)), np.arange(12)])
    np.testing.assert_array_equal(head(regions())[1], [np.arange(12).reshape(3, 4)] * 3)


def test_by_hand():
    head = BoxHead(1, {"width": 2})
    head.build((None, 1, 1, 2))
    head.hidden[0].set_weights([np.array([[1, -1], [1, -1]]), np.array([0, 1])])
    head.hidden[1].set_weights([np.array([[2, 0], [0, 3]]), np.array([-1, 0])])
    head.classes.set_weights([np.array([[1, 0], [0, 1]]), np.array([0, 0.5])])
    # [1, 2]: fc1 relu(3, -2) = (3, 0); fc2 relu(5, 0); logits (5, 0.5). [-1, 0]: (0, 2), (0, 6), (0, 6.5).
    logits = head(np.array([[[[1, 2]]], [[[-1, 0]]]], "float32"))[0]
    np.testing.assert_allclose(logits, [[5, 0.5], [0, 6.5]])


def test_no_region_is_not_an_error():
    logits, deltas = BoxHead(4, {"width": 8})(np.zeros((0, 2, 2, 5), "float32"))
    assert logits.shape == (0, 5) and deltas.shape == (0, 5, 4)


def test_every_weight_gets_a_gradient():
    head = BoxHead(4, {"width": 8})
    head.build((None, 2, 2, 5))
    with tf.GradientTape() as tape:
        logits, deltas = head(regions())
        loss = tf.reduce_sum(logits**2 + logits) + tf.reduce_sum(deltas**2 + deltas)
    gradients = tape.gradient(loss, [w.value for w in head.trainable_weights])
    assert len(gradients) == 8 and all(np.abs(g).max() > 0 for g in gradients)


# Class-agnostic deltas --------------------------------------------------------------------------------------------


def test_class_agnostic_deltas_by_hand():
    """One box for all classes, in the loss of every class and in detections; the layer has four outputs."""
    head = BoxHead(2, {"pool": 1, "hidden": 0, "class_agnostic": True, "beta": 0.0})
    head.connect((8,), 1)
    assert head.deltas.kernel.shape == (1, 4) and head.PER_CLASS == ("classes",)
    head.classes.bias.assign(np.log([1, 1, 2]))
    head.deltas.bias.assign([5, 0, 0, 0])  # half of the width
    box = tf.constant([[[10.0, 10.0, 30.0, 30.0]]])
    logits, deltas = head.classify([tf.zeros((1, 8, 8, 1))], box)
    yes = tf.ones((1, 1), bool)
    for label in (1, 2):
        regions = SampledRegions(box, tf.constant([[label]]), tf.zeros((1, 1), "int32"), yes, yes, 1)
        losses = head.region_losses(logits, deltas, regions, {"boxes": box})
        assert float(losses["box_loss"]) == 5
    found = head.detect([tf.zeros((1, 8, 8, 1))], Proposed(box, yes), np.float32([[64, 64]]))
    assert found["labels"].numpy()[0].tolist() == [2, 1]
    np.testing.assert_allclose(found["scores"], [[0.5, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(found["boxes"][0], [[20, 10, 40, 30]] * 2, atol=1e-5)
