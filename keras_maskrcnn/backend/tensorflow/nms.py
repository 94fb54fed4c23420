"""Non-maximum suppression by TensorFlow's kernel, all images and groups in parallel. The kernel has no XLA lowering."""

import tensorflow as tf

from keras_maskrcnn.ops.nms import overlapped

# With more than MANY·k candidate rows for k results, the best TRIED·k rows are tried first. With fewer rows, a second
# pass, when it is needed, costs more than the first one saves: RPN proposals (4·k rows for k results) need most rows.
TRIED, MANY = 2, 4


def nms(boxes, scores, iou_threshold, max_output, groups=None):
    """Greedy suppression with the result of `ops.nms.nms`; the arguments are those that `ops.nms.prepare` returns.

    A row only suppresses rows of lower score, so the best rows alone determine the first results. Where there are many
    more rows than results, the best rows are tried first; all rows are used only if results are missing.

    Args:
        boxes: float32 `[B, N, 4]`.
        scores: float32 `[B, N]`, -inf in rows that are not used.
        iou_threshold: float or float32 scalar tensor.
        max_output: int or int32 scalar tensor.
        groups: int `[B, N]` or None. Memory grows with B · N · number of distinct groups among the rows in use.

    Returns:
        `(indices, valid)`: int32 and bool `[B, max_output]`.
    """
    known = scores.shape[1]
    boxes, scores, groups, order, used = _sorted(boxes, scores, groups)
    count = tf.shape(scores)[1]

    def best(rows):
        group = None if groups is None else groups[:, :rows]
        return _first_kept(boxes[:, :rows], scores[:, :rows] > float("-inf"), iou_threshold, max_output, group)

    if known is not None and not tf.is_tensor(max_output) and known <= MANY * max_output:  # no branch in the graph
        position = best(count)
    else:
        enough = tf.where(count > MANY * max_output, TRIED * max_output, count)
        position = best(enough)
        complete = (tf.reduce_min(position, axis=1) >= 0) | (used <= enough)
        position = tf.cond(tf.reduce_all(complete), lambda: position, lambda: best(count))
    return _rows(order, position), position >= 0


def fast_nms(boxes, scores, iou_threshold, max_output, groups=None):
    """Suppression in one step with the result of `ops.nms.fast_nms`, computed on the rows in use only.

    Arguments and result as for `nms`; memory grows with B · (number of rows in use)².
    """
    boxes, scores, groups, order, _ = _sorted(boxes, scores, groups)
    keep = (scores > float("-inf")) & ~overlapped(boxes, iou_threshold, groups)
    count = tf.shape(scores)[1]
    rank, position = tf.math.top_k(tf.where(keep, count - tf.range(count), 0), tf.minimum(max_output, count))
    position = tf.where(rank > 0, position, -1)
    position = tf.pad(position, [[0, 0], [0, max_output - tf.shape(position)[1]]], constant_values=-1)
    return _rows(order, position), position >= 0


def _sorted(boxes, scores, groups):
    """The rows in use, best first: boxes, scores, groups, the order of the rows, and the number in use per image.

    An image with fewer rows in use than another one has rows with a score of -inf at the end.
    """
    used = tf.math.count_nonzero(scores > float("-inf"), axis=1, dtype=tf.int32)
    count = tf.reduce_max(tf.pad(used, [[0, 1]]))  # maximum over the images; 0 without images
    scores, order = tf.math.top_k(scores, count)  # ties: the lower row comes first
    boxes = tf.gather(boxes, order, batch_dims=1)
    if groups is not None:
        groups = tf.gather(groups, order, batch_dims=1)
    return boxes, scores, groups, order, used


def _rows(order, position):
    """Rows at positions of the order; position -1, an empty slot, selects the column of zeros in front."""
    return tf.gather(tf.pad(order, [[0, 0], [1, 0]]), position + 1, batch_dims=1)


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
