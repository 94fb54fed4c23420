"""Non-maximum suppression by TensorFlow's own kernel, one image at a time. It has no XLA lowering."""

import tensorflow as tf


def nms(boxes, scores, iou_threshold, max_output, groups=None):
    """Greedy suppression with the arguments and the answer of `ops.nms.nms_static`.

    Args:
        boxes: float32 `[B, N, 4]`.
        scores: float32 `[B, N]`, -inf where a row does not take part.
        iou_threshold: float.
        max_output: int.
        groups: int `[B, N]` ≥ 0 or None.

    Returns:
        `(indices, valid)`: int32 and bool `[B, max_output]`.
    """
    if groups is not None:
        boxes = _apart(boxes, tf.cast(groups, tf.int32))

    def one_image(inputs):
        indices, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=inputs[0],
            scores=inputs[1],
            max_output_size=max_output,
            iou_threshold=float(iou_threshold),
            score_threshold=float("-inf"),
            pad_to_max_output_size=True,
        )
        return indices, count

    signature = (tf.TensorSpec((max_output,), tf.int32), tf.TensorSpec((), tf.int32))
    indices, count = tf.map_fn(one_image, (boxes, scores), fn_output_signature=signature)
    return indices, tf.range(max_output)[None, :] < count[:, None]


def _apart(boxes, groups):
    """Moves the groups apart, so that boxes of different groups never meet.

    They go to the cells of a square grid around the origin rather than in one line: with 80 classes coordinates
    grow fivefold instead of eightyfold, and float32 keeps a thousandth of a pixel.
    """
    extent = tf.reduce_max(boxes, axis=(1, 2)) - tf.reduce_min(boxes, axis=(1, 2)) + 1.0
    number = tf.cast(tf.reduce_max(groups, axis=1) + 1, tf.float32)
    across = tf.cast(tf.math.ceil(tf.sqrt(number)), tf.int32)[:, None]
    half = tf.cast(across // 2, tf.float32)
    column = tf.cast(groups % across, tf.float32) - half
    line = tf.cast(groups // across, tf.float32) - half
    shift = tf.stack([column, line, column, line], axis=-1) * extent[:, None, None]
    return boxes + shift
