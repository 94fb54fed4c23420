"""The network as one TensorFlow graph."""

import tensorflow as tf


def predict_function(model):
    """The network as one graph for all image and batch sizes.

    Args:
        model: an `InstanceModel` or a view of one.

    Returns:
        Function from a dict of `images` float32 `[B, H, W, 3]` and `sizes` float32 `[B, 2]` to the output of `model`.
    """
    images, sizes = tf.TensorSpec([None, None, None, 3], tf.float32), tf.TensorSpec([None, 2], tf.float32)

    # Autograph is off because the code has no Python control flow to convert.
    @tf.function(input_signature=[{"images": images, "sizes": sizes}], autograph=False)
    def predict(inputs):
        return model(inputs, training=False)

    return predict
