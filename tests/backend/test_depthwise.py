"""Depthwise convolution with composed gradients, against TensorFlow's own kernels."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from keras_maskrcnn.backend.tensorflow.convolution import depthwise_conv


def _theirs(inputs, kernel, stride):
    return tf.nn.depthwise_conv2d(inputs, kernel, [1, stride, stride, 1], "SAME")


def _values_and_gradients(function, inputs, kernel, stride, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def run(inputs, kernel):
        with tf.GradientTape() as tape:
            tape.watch((inputs, kernel))
            outputs = function(inputs, kernel, stride)
            weights = tf.cos(tf.range(tf.size(outputs), dtype=tf.float32))
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.reshape(weights, tf.shape(outputs)))
        return outputs, *tape.gradient(loss, (inputs, kernel))

    return [tf.cast(value, tf.float32).numpy() for value in run(inputs, kernel)]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_equal_to_the_kernels_of_tensorflow(size, stride, jit_compile):
    random = np.random.default_rng(0)
    for height, width in ((2, 4), (8, 12), (10, 6)):
        inputs = tf.constant(random.normal(size=(2, height, width, 6)), tf.float32)
        kernel = tf.constant(random.normal(size=(size, size, 6, 1)), tf.float32)
        ours = _values_and_gradients(depthwise_conv, inputs, kernel, stride, jit_compile)
        for mine, other in zip(ours, _values_and_gradients(_theirs, inputs, kernel, stride, False), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_stride_1_takes_odd_sides_and_bfloat16_rounds_once(stride):
    side = 7 if stride == 1 else 8
    random = np.random.default_rng(1)
    inputs = tf.constant(random.normal(size=(1, side, side, 4)), tf.bfloat16)
    kernel = tf.constant(random.normal(size=(5, 5, 4, 1)), tf.bfloat16)
    exact = [tf.cast(value, tf.float32) for value in (inputs, kernel)]
    ours = _values_and_gradients(depthwise_conv, inputs, kernel, stride, False)
    for mine, other in zip(ours, _values_and_gradients(_theirs, *exact, stride, False), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0.02, atol=0.05)
