"""A network as one TensorFlow graph for images and batches of all sizes, and for all thresholds."""

import tensorflow as tf


def signature(channels):
    """`TensorSpec`s of the network's inputs by name, for images of a number of channels."""
    return {
        "images": tf.TensorSpec([None, None, None, channels], tf.float32, name="images"),
        "sizes": tf.TensorSpec([None, 2], tf.float32, name="sizes"),
        "score_threshold": tf.TensorSpec([], tf.float32, name="score_threshold"),
        "nms_iou": tf.TensorSpec([], tf.float32, name="nms_iou"),
        "max_detections": tf.TensorSpec([], tf.int32, name="max_detections"),
    }


def dynamic(call, channels):
    """The function traced once, with open heights, widths and batch size and with thresholds as inputs.

    Args:
        call: function of a dict of inputs.
        channels: of the images.

    Returns:
        Function from a dict of arrays to a dict of tensors. It does not trace again, so that threads can share it.
    """
    # There is no Python control flow to convert, and autograph would read the source files again.
    specs = signature(channels)
    graph = tf.function(call, input_signature=[specs], autograph=False).get_concrete_function()
    return lambda inputs: graph({name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()})


def compiled(call):
    """The function compiled by XLA, once per shape of its inputs."""
    return tf.function(call, jit_compile=True, autograph=False)
