"""Convolution with a scaled kernel, without storing the scaled kernel for the backward pass."""

import tensorflow as tf


def scaled_conv(inputs, kernel, scale, strides, padding):
    """Convolution with kernel·scale, recomputed for the gradient instead of stored.

    Stored, these products would take as much memory as all kernels of the network during the whole training step.

    Args:
        inputs: `[B, H, W, C]`.
        kernel: float32 `[h, w, C, D]`.
        scale: float32 `[D]`.
        strides: two ints.
        padding: "same" or "valid".

    Returns:
        `[B, H', W', D]` in the dtype of `inputs`.
    """
    options = {"strides": [1, *strides, 1], "padding": padding.upper()}

    def scaled(kernel, scale):
        return tf.cast(kernel * scale, inputs.dtype)

    @tf.custom_gradient
    def run(inputs, kernel, scale):
        def gradient(upstream):
            # The dependency prevents graph optimisation from computing the product early or reusing the forward one.
            with tf.control_dependencies([upstream]):
                again = scaled(tf.identity(kernel), tf.identity(scale))
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=again, out_backprop=upstream, **options
            )
            to_product = tf.raw_ops.Conv2DBackpropFilter(
                input=inputs, filter_sizes=tf.shape(kernel), out_backprop=upstream, **options
            )
            to_product = tf.cast(to_product, tf.float32)
            return to_inputs, to_product * scale, tf.reduce_sum(to_product * kernel, axis=(0, 1, 2))

        return tf.raw_ops.Conv2D(input=inputs, filter=scaled(kernel, scale), **options), gradient

    return run(inputs, kernel, scale)
