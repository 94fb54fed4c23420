"""Non-maximum suppression by TensorFlow's own kernel, all images and groups in parallel. It has no XLA lowering."""

import tensorflow as tf


def nms(boxes, scores, iou_threshold, max_output, groups=None):
    """Greedy suppression with the arguments and the answer of `ops.nms.nms_static`.

    `tf.image.combined_non_max_suppression` suppresses within classes, which are the groups here, but tells boxes and
    scores, not rows. So it is given the rows by falling score, and as score the number of rows that follow: that is as
    good for the order, never ties, and leads back from an answer to its row.

    Args:
        boxes: float32 `[B, N, 4]`.
        scores: float32 `[B, N]`, -inf where a row does not take part.
        iou_threshold: float.
        max_output: int.
        groups: int `[B, N]` ≥ 0 or None. Memory grows with B · N · the number of groups.

    Returns:
        `(indices, valid)`: int32 and bool `[B, max_output]`.
    """
    count = tf.shape(scores)[1]
    scores, order = tf.math.top_k(scores, count)  # of equal scores the lower row comes first
    following = tf.cast(count - tf.range(count), tf.float32)
    following = tf.where(scores > float("-inf"), following, 0.0)[..., None]
    if groups is not None:
        groups = tf.gather(tf.cast(groups, tf.int32), order, batch_dims=1)
        following *= tf.one_hot(groups, tf.reduce_max(groups) + 1)
    kept = tf.image.combined_non_max_suppression(
        tf.gather(boxes, order, batch_dims=1)[:, :, None],
        following,
        max_output_size_per_class=max_output,
        max_total_size=max_output,
        iou_threshold=iou_threshold,
        score_threshold=0.5,
        clip_boxes=False,
    ).nmsed_scores
    # An empty slot has kept = 0 and so finds the column added here.
    order = tf.pad(order, [[0, 0], [0, 1]])
    return tf.gather(order, count - tf.cast(kept, tf.int32), batch_dims=1), kept > 0.0
