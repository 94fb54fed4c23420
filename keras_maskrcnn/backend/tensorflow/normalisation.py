"""Batch normalisation as one fused operation."""

import tensorflow as tf


def batch_norm(layer, inputs, training):
    """Batch normalisation of `[B, H, W, C]` as one fused operation; updates the moving averages when training.

    Args:
        layer: a built `keras.layers.BatchNormalization` with scale and centre.
        inputs: float tensor; statistics and affine part are float32 under any policy.
        training: whether batch statistics are used and added to the moving averages.

    Returns:
        tensor like `inputs`.
    """
    gamma, beta, mean, variance = (
        tf.cast(v.value, tf.float32) for v in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    if not training:
        outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, mean, variance, epsilon=layer.epsilon, is_training=False
        )
        return outputs
    outputs, new_mean, new_variance = tf.compat.v1.nn.fused_batch_norm(
        inputs, gamma, beta, epsilon=layer.epsilon, is_training=True
    )
    for variable, value in ((layer.moving_mean, new_mean), (layer.moving_variance, new_variance)):
        variable.assign(variable.value * layer.momentum + tf.stop_gradient(value) * (1 - layer.momentum))
    return outputs
