"""Copies of a tensor: values, gradients, and sums that do not depend on timing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.backend.branches import branches


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_gradients_are_those_of_plain_use(count, jit_compile):
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 6)).astype("float32"))

    @tf.function(jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = sum(tf.reduce_sum((i + 1) * copy**2) for i, copy in enumerate(branches(x, count)))
        return tape.gradient(loss, x)

    np.testing.assert_allclose(gradient(x), 2 * x * sum(range(1, count + 1)), rtol=1e-6)


def test_gradients_are_added_in_pairs():
    """The float32 sum 1 + 1e8 - 1e8 is 0 or 1, depending on the order."""

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = sum(tf.reduce_sum(f * copy) for f, copy in zip((1.0, 1e8, -1e8), branches(x, 3), strict=True))
        return tape.gradient(loss, x)

    graph = gradient.get_concrete_function(tf.TensorSpec([8], "float32")).graph
    assert "AddN" not in {operation.type for operation in graph.get_operations()}
    np.testing.assert_array_equal(gradient(tf.zeros(8)), np.zeros(8))


def test_two_consumers_need_no_copies():
    x = keras.ops.ones(3)
    assert all(copy is x for copy in branches(x, 2))
