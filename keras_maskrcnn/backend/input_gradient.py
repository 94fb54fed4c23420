"""Gradients with respect to inputs."""

import keras
import numpy as np


def input_gradient(function, inputs):
    """Gradient of a scalar function with respect to its input.

    Args:
        function: maps a float32 tensor like `inputs` to a scalar, written in `keras.ops`.
        inputs: float32 array of any shape.

    Returns:
        float32 array like `inputs`.

    Raises:
        ValueError: on a backend other than TensorFlow and JAX.
    """
    name = keras.backend.backend()
    if name not in ("tensorflow", "jax"):
        raise ValueError(f"input gradients are supported on TensorFlow and JAX, not on {name!r}")
    gradient = _tensorflow if name == "tensorflow" else _jax
    return np.asarray(gradient(function, np.asarray(inputs, "float32")), "float32")


def _tensorflow(function, inputs):
    import tensorflow as tf

    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(inputs)
    return tape.gradient(value, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _jax(function, inputs):
    import jax

    return jax.grad(function)(inputs)
