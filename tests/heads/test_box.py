"""The box head: layout of its outputs, weights, dtypes, gradients."""

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.heads.box import BoxHead


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


def test_every_weight_learns():
    head = BoxHead(4, {"width": 8})
    head.build((None, 2, 2, 5))
    with tf.GradientTape() as tape:
        logits, deltas = head(regions())
        loss = tf.reduce_sum(logits**2 + logits) + tf.reduce_sum(deltas**2 + deltas)
    gradients = tape.gradient(loss, [w.value for w in head.trainable_weights])
    assert len(gradients) == 8 and all(np.abs(g).max() > 0 for g in gradients)
