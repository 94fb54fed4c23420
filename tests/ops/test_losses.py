"""Loss terms hand-computed values, comparison with Keras, gradients with an empty mask."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.losses import binary_cross_entropy, masked_mean, smooth_l1, softmax_cross_entropy

values = np.array([[1, 2], [30, 40]], "float32")


def test_masked_mean_by_hand():
    mask = np.array([[True, False], [True, True]])
    assert float(masked_mean(values, mask)) == pytest.approx(71 / 3)
    assert float(masked_mean(values, mask, count=10)) == pytest.approx(7.1)
    # A mask broadcasts over the entries of a row.
    assert float(masked_mean(values, np.array([[False], [True]]))) == pytest.approx(35)
    assert float(masked_mean(values, mask, count=0)) == pytest.approx(71)  # count is at least 1


def test_empty_mask_gives_zero_loss_and_gradient():
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = masked_mean(x, tf.zeros((2, 2), bool))
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, x), np.zeros((2, 2)))


def test_masked_nan_affects_neither_value_nor_gradient():
    x = tf.constant([1.0, math.nan, math.inf])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = masked_mean(x, tf.constant([True, False, False]))
    assert float(loss) == 1
    np.testing.assert_array_equal(tape.gradient(loss, x), [1, 0, 0])


def test_binary_cross_entropy_by_hand_and_for_large_logits():
    # At 0 the probability is one half: log 2 for any target. At ±1000 the naive form overflows.
    logits = np.array([0, 0, math.log(3), 1000, 1000, -1000, -1000], "float32")
    targets = np.array([0, 0.3, 1, 1, 0, 0, 1], "float32")
    expected = [math.log(2), math.log(2), -math.log(0.75), 0, 1000, 0, 1000]
    np.testing.assert_allclose(binary_cross_entropy(logits, targets), expected, rtol=1e-6, atol=1e-6)


def test_binary_cross_entropy_gradient_is_probability_minus_target():
    logits = tf.constant([-60.0, -2.0, 0.0, 0.0, 0.5, 3.0, 60.0])
    targets = tf.constant([0.0, 1.0, 0.0, 1.0, 0.25, 0.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(binary_cross_entropy(logits, targets))
    np.testing.assert_allclose(tape.gradient(loss, logits), tf.sigmoid(logits) - targets, atol=1e-6)


def test_softmax_cross_entropy_by_hand():
    logits = np.log(np.array([[[1, 1, 2], [8, 1, 1]]], "float32"))
    error = softmax_cross_entropy(logits, np.array([[2, 1]], "int32"))
    np.testing.assert_allclose(error, [[math.log(2), math.log(10)]], rtol=1e-6)
    assert error.shape == (1, 2)


def test_softmax_cross_entropy_agrees_with_keras():
    logits = np.random.default_rng(0).normal(size=(6, 5)).astype("float32") * 30
    labels = np.array([0, 1, 2, 3, 4, 0], "int32")
    expected = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    np.testing.assert_allclose(softmax_cross_entropy(logits, labels), expected, rtol=1e-5, atol=1e-5)


def test_smooth_l1_by_hand():
    # β = 1: 0.5·0.25; β = 0.5: 0.5·0.0625/0.5 below, |e| - 0.25 above; equal at |e| = β.
    np.testing.assert_allclose(smooth_l1(np.array([0.5, -0.5, 3.0])), [0.125, 0.125, 2.5])
    np.testing.assert_allclose(smooth_l1(np.array([0.25, 0.5, -2.0]), 0.5), [0.0625, 0.25, 1.75])


def test_smooth_l1_gradient_is_bounded_and_continuous():
    error = tf.constant([-5.0, -0.1, 0.0, 0.05, 0.0999, 0.1001, 9.0])
    with tf.GradientTape() as tape:
        tape.watch(error)
        loss = tf.reduce_sum(smooth_l1(error, 0.1))
    np.testing.assert_allclose(tape.gradient(loss, error), [-1, -1, 0, 0.5, 0.999, 1, 1], atol=1e-6)


def test_smooth_l1_with_beta_zero_is_l1_and_negative_beta_is_rejected():
    np.testing.assert_array_equal(smooth_l1(np.array([-2.0, 0.0, 0.5]), 0.0), [2.0, 0.0, 0.5])
    with pytest.raises(ValueError, match="beta"):
        smooth_l1(np.zeros(2), -0.1)


def test_a_batch_without_objects_gives_zero_gradients_for_padding():
    """The box loss of an image without objects: only padding is encoded, the mask is empty."""
    deltas = tf.ones((1, 3, 4))
    target = box_ops.encode(tf.zeros((1, 3, 4)), tf.zeros((1, 3, 4)))
    with tf.GradientTape() as tape:
        tape.watch(deltas)
        loss = masked_mean(smooth_l1(deltas - target), tf.zeros((1, 3, 1), bool), 0)
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, deltas), np.zeros((1, 3, 4)))
