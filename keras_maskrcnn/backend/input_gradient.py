"""The gradient of a number with respect to the pixels it was computed from."""

import keras
import numpy as np


def input_gradient(function, inputs):
    """How a number changes with each input value.

    Args:
        function: from a float32 tensor like `inputs` to a scalar, in `keras.ops`.
        inputs: float32 array of any shape.

    Returns:
        float32 array like `inputs`.

    Raises:
        ValueError: on a backend other than TensorFlow and JAX.
    """
    name = keras.backend.backend()
    if name not in ("tensorflow", "jax"):
        raise ValueError(f"gradients of inputs are computed on TensorFlow and JAX, not on {name!r}")
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
