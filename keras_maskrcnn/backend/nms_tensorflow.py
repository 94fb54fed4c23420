"""Non-maximum suppression by TensorFlow's own kernel, all images and groups in parallel. It has no XLA lowering."""

import tensorflow as tf

# For k results the best TRIED·k rows are tried first where there are more than MANY·k. With fewer the second look, when
# it is needed, costs more than the first one saves: proposals, four levels of k for k results, need most of their rows.
TRIED, MANY = 2, 4


def nms(boxes, scores, iou_threshold, max_output, groups=None):
    """Greedy suppression with the arguments and the answer of `ops.nms.nms_static`.

    What a row suppresses comes after it in the order of scores, so the best rows alone give the first results. They
    are tried first where there are many more rows than results; the other rows count only if results are missing.

    Args:
        boxes: float32 `[B, N, 4]`.
        scores: float32 `[B, N]`, -inf where a row does not take part.
        iou_threshold: float.
        max_output: int.
        groups: int `[B, N]` or None. Memory grows with B · N · the number of different groups among the rows looked at.

    Returns:
        `(indices, valid)`: int32 and bool `[B, max_output]`.
    """
    taking_part = tf.math.count_nonzero(scores > float("-inf"), axis=1, dtype=tf.int32)
    count = tf.reduce_max(tf.pad(taking_part, [[0, 1]]))  # of the image that has most; 0 of no image
    known = scores.shape[1]
    scores, order = tf.math.top_k(scores, count)  # of equal scores the lower row comes first
    boxes = tf.gather(boxes, order, batch_dims=1)
    if groups is not None:
        groups = tf.gather(groups, order, batch_dims=1)

    def best(rows):
        group = None if groups is None else groups[:, :rows]
        return _first_kept(boxes[:, :rows], scores[:, :rows] > float("-inf"), iou_threshold, max_output, group)

    if known is not None and known <= MANY * max_output:  # no branch in the graph then
        position = best(count)
    else:
        enough = tf.where(count > MANY * max_output, TRIED * max_output, count)
        position = best(enough)
        complete = (tf.reduce_min(position, axis=1) >= 0) | (taking_part <= enough)
        position = tf.cond(tf.reduce_all(complete), lambda: position, lambda: best(count))
    # An empty slot finds the column of zeros in front.
    return tf.gather(tf.pad(order, [[0, 0], [1, 0]]), position + 1, batch_dims=1), position >= 0


def _first_kept(boxes, taking_part, iou_threshold, max_output, groups):
    """Greedy suppression of sorted rows.

    `tf.image.combined_non_max_suppression` suppresses within classes, which are the groups here, but tells boxes and
    scores, not rows. So it gets as score the number of rows that follow, and one: that is as good for the order, never
    ties, and leads back from an answer to its row.

    Args:
        boxes: float32 `[B, N, 4]`, best first.
        taking_part: bool `[B, N]`.
        iou_threshold: float.
        max_output: int.
        groups: int `[B, N]` or None.

    Returns:
        int32 `[B, max_output]`: places of the kept rows, rising; -1 in empty slots, which come last.
    """
    count = tf.shape(boxes)[1]
    member = tf.cast(taking_part, tf.float32)[..., None]  # multiplied, as a broadcast `tf.where` is slower
    if groups is not None:
        member *= _membership(groups)
    following = tf.cast(count - tf.range(count), tf.float32)[:, None]
    # Time and memory of the kernel grow with the results that a class may have, not with those that it has.
    largest = tf.cast(tf.reduce_max(tf.reduce_sum(member, axis=1)), tf.int32)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None],
        member * following,
        max_output_size_per_class=tf.clip_by_value(largest, 1, max_output),
        max_total_size=max_output,
        iou_threshold=iou_threshold,
        score_threshold=0.5,
        clip_boxes=False,
    ).nmsed_scores
    return tf.where(kept > 0.0, count - tf.cast(kept, tf.int32), -1)


def _membership(groups):
    """Float32 `[B, N, G]`, 1 for the group of each row, else 0; G counts the groups that occur, not the numbers."""
    names, number = tf.unique(tf.reshape(groups, [-1]))
    return tf.one_hot(tf.reshape(number, tf.shape(groups)), tf.maximum(tf.size(names), 1))
