"""Greedy non-maximum suppression with a fixed number of results."""

from keras import ops

from keras_maskrcnn import backend


def nms(boxes, scores, iou_threshold, max_output, groups=None, valid=None):
    """Keeps the best boxes, each of which suppresses those that it overlaps too much.

    Boxes are taken by falling score (of equal scores the lower row first); one is kept if its IoU with every kept box
    of its group is at most `iou_threshold`. Girshick et al., R-CNN (2014), section 2.2. In float32, without gradient.

    Args:
        boxes: float `[B, N, 4]`, x1, y1, x2, y2; all in one unit.
        scores: float `[B, N]`; a row of -inf or NaN never comes out.
        iou_threshold: float in [0, 1].
        max_output: int, number of results an image.
        groups: int `[B, N]` ≥ 0, level or class: boxes of different groups do not suppress each other. None: one group.
        valid: bool `[B, N]`, rows that take part. None: all.

    Returns:
        `(indices, valid)`: int32 `[B, max_output]`, rows by falling score, 0 where there is none; bool, same shape.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    scores = ops.stop_gradient(ops.cast(scores, "float32"))
    taking_part = scores > float("-inf")
    if valid is not None:
        taking_part = taking_part & ops.cast(valid, "bool")
    scores = ops.where(taking_part, scores, float("-inf"))
    if backend.lowering("nms") == "fixed_point":
        boxes = ops.where(taking_part[..., None], boxes, 0.0)
        return nms_static(boxes, scores, iou_threshold, max_output, groups)
    from keras_maskrcnn.backend import nms_tensorflow

    return nms_tensorflow.nms(boxes, scores, iou_threshold, max_output, groups)


def nms_static(boxes, scores, iou_threshold, max_output, groups=None):
    """`nms` with static shapes for XLA and JAX: all IoUs at once, then suppression repeated until nothing changes.

    With the rows sorted, greedy suppression is the one solution of keep_i = valid_i ∧ ¬∃ j < i: keep_j ∧ IoU_ij > t.
    It is found by putting a guess into the right side again and again: after step k the first k links of every chain
    of suppressions are settled, so it takes as many steps as the longest chain, in practice about ten. Time and memory
    grow with B · N²: limit the rows to the best few thousand first.

    Args:
        boxes: float32 `[B, N, 4]`, N ≥ 0.
        scores: float32 `[B, N]`, -inf where a row does not take part.
        iou_threshold: float.
        max_output: int.
        groups: int `[B, N]` or None.

    Returns:
        As `nms`.
    """
    batch, count = ops.shape(scores)
    if count == 0:
        return ops.zeros((batch, max_output), "int32"), ops.zeros((batch, max_output), "bool")
    order = ops.argsort(-scores, axis=-1)
    boxes = ops.take_along_axis(boxes, order[..., None], axis=1)
    valid = ops.take_along_axis(scores, order, axis=1) > float("-inf")
    overlap = _iou_matrix(boxes) > iou_threshold
    if groups is not None:
        groups = ops.take_along_axis(ops.cast(groups, "int32"), order, axis=1)
        overlap = overlap & (groups[:, :, None] == groups[:, None, :])
    row = ops.arange(count)
    suppresses = overlap & (row[:, None] < row[None, :])
    return _first_kept(_settle(valid, suppresses), order, max_output)


def _iou_matrix(boxes):
    """IoU of every box with every other, `[B, N, N]`; 0 for boxes without area."""
    x1, y1, x2, y2 = ops.unstack(boxes, 4, axis=-1)
    area = (x2 - x1) * (y2 - y1)
    width = ops.minimum(x2[:, :, None], x2[:, None, :]) - ops.maximum(x1[:, :, None], x1[:, None, :])
    height = ops.minimum(y2[:, :, None], y2[:, None, :]) - ops.maximum(y1[:, :, None], y1[:, None, :])
    shared = ops.maximum(width, 0.0) * ops.maximum(height, 0.0)
    union = area[:, :, None] + area[:, None, :] - shared
    real = (area[:, :, None] > 0) & (area[:, None, :] > 0)
    return ops.where(real, shared / ops.where(real, union, 1.0), 0.0)


def _settle(valid, suppresses):
    """Solution of keep_i = valid_i ∧ ¬∃ j: keep_j ∧ suppresses_ji, bool `[B, N]`."""

    def changing(keep, before):
        return ops.any(keep != before)

    def step(keep, before):
        return valid & ~ops.any(keep[:, :, None] & suppresses, axis=1), keep

    return ops.while_loop(changing, step, (valid, ~valid))[0]


def _first_kept(keep, order, max_output):
    """The first `max_output` kept rows, in order; rows counted as before sorting."""
    count = keep.shape[1]
    rank = ops.where(keep, count - ops.arange(count, dtype="int32"), 0)
    value, position = ops.top_k(rank, min(max_output, count))
    valid = value > 0
    indices = ops.where(valid, ops.cast(ops.take_along_axis(order, position, axis=1), "int32"), 0)
    missing = [[0, 0], [0, max_output - min(max_output, count)]]
    return ops.pad(indices, missing), ops.pad(valid, missing)
