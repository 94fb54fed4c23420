"""Non-maximum suppression by TensorFlow's kernel, all images and groups in parallel. The kernel has no XLA lowering."""

import tensorflow as tf

from keras_maskrcnn.ops.nms import MANY, TRIED, overlapped


def nms(boxes, scores, iou_threshold, max_output, groups=None):
    """Greedy suppression with the result of `ops.nms.nms`; the arguments are those that `ops.nms.prepare` returns.

    Args:
        boxes: float32 `[B, N, 4]`.
        scores: float32 `[B, N]`, -inf in rows that are not used.
        iou_threshold: float or float32 scalar tensor.
        max_output: int or int32 scalar tensor.
        groups: int `[B, N]` or None. Memory grows with B · N · number of distinct groups among the rows in use.

    Returns:
        `(indices, valid)`: int32 and bool `[B, max_output]`.
    """

    def first(boxes, used, groups):
        return _first_kept(boxes, used, iou_threshold, max_output, groups)

    return _best_first(first, boxes, scores, max_output, groups)


def fast_nms(boxes, scores, iou_threshold, max_output, groups=None):
    """Suppression in one step with the result of `ops.nms.fast_nms`; arguments and result as for `nms`.

    Memory grows with B · (number of rows in use)². On a CPU the kernel of `nms` takes about the same time.
    """

    def first(boxes, used, groups):
        count = tf.shape(used)[1]
        rank = tf.where(used & ~overlapped(boxes, iou_threshold, groups), count - tf.range(count), 0)
        rank, position = tf.math.top_k(rank, tf.minimum(max_output, count))
        missing = [[0, 0], [0, max_output - tf.shape(position)[1]]]
        return tf.pad(tf.where(rank > 0, position, -1), missing, constant_values=-1)

    return _best_first(first, boxes, scores, max_output, groups)


def _best_first(first, boxes, scores, max_output, groups):
    """Results of a suppression in which rows only suppress rows of lower score.

    The best rows alone determine the first results. Where there are many more rows than results, the best ones are
    tried first, and all rows are used only if results are missing. With fewer rows a second pass, when it is needed,
    costs more than the first one saves: RPN proposals (4·k rows for k results) need most rows.

    Args:
        first: function of boxes float32 `[B, n, 4]`, best first, the rows in use bool `[B, n]` and groups `[B, n]` or
            None, to the positions of the kept rows, ascending: int32 `[B, max_output]`, -1 in empty slots at the end.
        boxes: as for `nms`, as the arguments below.
        scores: float32 `[B, N]`.
        max_output: int or int32 scalar tensor.
        groups: int `[B, N]` or None.

    Returns:
        As `nms`.
    """
    used = tf.math.count_nonzero(scores > float("-inf"), axis=1, dtype=tf.int32)
    count = tf.reduce_max(tf.pad(used, [[0, 1]]))  # maximum over the images; 0 without images
    known = scores.shape[1]
    scores, order = tf.math.top_k(scores, count)  # ties: the lower row comes first
    boxes = tf.gather(boxes, order, batch_dims=1)
    if groups is not None:
        groups = tf.gather(groups, order, batch_dims=1)

    def best(rows):
        group = None if groups is None else groups[:, :rows]
        return first(boxes[:, :rows], scores[:, :rows] > float("-inf"), group)

    if known is not None and not tf.is_tensor(max_output) and known <= MANY * max_output:  # no branch in the graph
        position = best(count)
    else:
        enough = tf.where(count > MANY * max_output, TRIED * max_output, count)
        position = best(enough)
        complete = (tf.reduce_min(position, axis=1) >= 0) | (used <= enough)
        position = tf.cond(tf.reduce_all(complete), lambda: position, lambda: best(count))
    # Position -1 (an empty slot) selects the column of zeros in front.
    return tf.gather(tf.pad(order, [[0, 0], [1, 0]]), position + 1, batch_dims=1), position >= 0


def _first_kept(boxes, used, iou_threshold, max_output, groups):
    """Greedy suppression of sorted rows.

    `tf.image.combined_non_max_suppression` suppresses within classes (here: groups) and returns boxes and scores, but
    no row indices. So the score of a row is 1 + the number of rows after it: the order is the same, there are no ties,
    and the row follows from the returned score.

    Args:
        boxes: float32 `[B, N, 4]`, best first.
        used: bool `[B, N]`.
        iou_threshold: float or float32 scalar tensor.
        max_output: int or int32 scalar tensor.
        groups: int `[B, N]` or None.

    Returns:
        int32 `[B, max_output]`: positions of the kept rows, ascending; -1 in empty slots, which come last.
    """
    count = tf.shape(boxes)[1]
    member = tf.cast(used, tf.float32)[..., None]  # multiplied below: a broadcast `tf.where` is slower
    if groups is not None:
        member *= _membership(groups)
    following = tf.cast(count - tf.range(count), tf.float32)[:, None]
    # Time and memory of the kernel grow with the maximum number of results per class, not with the actual number.
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
    """Float32 `[B, N, G]`, one-hot group of each row; G is the number of distinct groups, not the highest number."""
    names, number = tf.unique(tf.reshape(groups, [-1]))
    return tf.one_hot(tf.reshape(number, tf.shape(groups)), tf.maximum(tf.size(names), 1))
