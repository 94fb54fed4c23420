"""Greedy non-maximum suppression with a fixed number of results and static shapes."""

from keras import ops

# Where there are more than MANY·k candidate rows for k results, the best TRIED·k rows are tried first: a row removes
# rows of lower score only, so the best rows alone determine the first results.
TRIED, MANY = 2, 4


def nms(boxes, scores, iou_threshold, max_output, groups=None, valid=None):
    """Keeps the boxes with the highest scores and suppresses the boxes that overlap them.

    Boxes are processed by descending score (ties: lower row first). A box is kept if its IoU with every kept box of
    its group is at most `iou_threshold`. Girshick et al., R-CNN (2014), section 2.2. Computed in float32; no gradient.

    All IoUs are computed at once, then suppression is repeated until nothing changes. With the rows sorted, greedy
    suppression is the unique solution of keep_i = valid_i ∧ ¬∃ j < i: keep_j ∧ IoU_ij > t, found by fixed-point
    iteration: after step k the first k links of every chain of suppressions are final, so the number of steps is the
    length of the longest chain, in practice about ten. Time and memory grow with B · N²: limit N to a few thousand,
    and use `nms_by_level` where the groups are levels.

    Args:
        boxes: float `[B, N, 4]`, N ≥ 0, x1, y1, x2, y2 in any common unit.
        scores: float `[B, N]`; rows with -inf or NaN are never returned.
        iou_threshold: float in [0, 1], or a float32 scalar tensor.
        max_output: int, number of results per image.
        groups: int `[B, N]` ≥ 0, such as level or class; boxes of different groups do not suppress each other.
            None: one group.
        valid: bool `[B, N]`, rows to use. None: all.

    Returns:
        `(indices, valid)`: int32 `[B, max_output]`, rows by descending score, 0 in empty slots; bool, same shape.
    """
    boxes, scores = prepare(boxes, scores, valid)
    boxes = ops.where((scores > float("-inf"))[..., None], boxes, 0.0)
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
    # Numbered at run time: a constant triangle would be N² bytes of an exported file.
    row = ops.cumsum(ops.cast(order >= 0, "int32"), axis=1)
    suppresses = overlap & (row[:, :, None] < row[:, None, :])
    return _first_kept(_settle(valid, suppresses), order, max_output)


def fast_nms(boxes, scores, iou_threshold, max_output, groups=None, valid=None):
    """Suppression in one step: a box is removed if any box of its group with a higher score overlaps it too much.

    Fast NMS (YOLACT, Bolya et al. 2019, section 3.3): in contrast to `nms`, a box that is removed itself removes others
    too. The kept boxes are a subset of those that `nms` keeps. Computed in float32; no gradient.

    Args:
        boxes: as for `nms`; N ≥ 1.
        scores: as for `nms`.
        iou_threshold: as for `nms`.
        max_output: as for `nms`.
        groups: as for `nms`.
        valid: as for `nms`.

    Returns:
        `(indices, valid)` as from `nms`.
    """
    boxes, scores = prepare(boxes, scores, valid)

    def best(rows):
        highest, order = ops.top_k(scores, rows)
        group = None if groups is None else ops.take_along_axis(ops.cast(groups, "int32"), order, axis=1)
        # Not `order[..., None]`: inside a branch tf2onnx knows no rank, which the ellipsis needs.
        taken = ops.take_along_axis(boxes, ops.expand_dims(order, 2), axis=1)
        removed = overlapped(taken, iou_threshold, group)
        return _first_kept((highest > float("-inf")) & ~removed, order, max_output)

    count, tried = scores.shape[1], TRIED * max_output
    if count <= MANY * max_output:
        return best(count)
    indices, kept = best(tried)
    used = ops.sum(ops.cast(scores > float("-inf"), "int32"), axis=1)
    complete = ops.all(kept[:, -1] | (used <= tried))
    return ops.cond(complete, lambda: (indices, kept), lambda: best(count))


def overlapped(boxes, iou_threshold, groups=None):
    """Rows whose IoU with an earlier row of their group exceeds a threshold.

    IoU > t is compared as (1 + t) · intersection > t · (sum of the areas), without a division.

    Args:
        boxes: float32 `[B, N, 4]`, highest score first; rows that are not in use come last and remove none.
        iou_threshold: as for `nms`.
        groups: int32 `[B, N]`, or None.

    Returns:
        bool `[B, N]`.
    """
    x1, y1, x2, y2 = ops.unstack(boxes, 4, axis=-1)
    area = ops.maximum(x2 - x1, 0.0) * ops.maximum(y2 - y1, 0.0) * iou_threshold
    width = ops.minimum(x2[:, :, None], x2[:, None, :]) - ops.maximum(x1[:, :, None], x1[:, None, :])
    height = ops.minimum(y2[:, :, None], y2[:, None, :]) - ops.maximum(y1[:, :, None], y1[:, None, :])
    shared = ops.maximum(width, 0.0) * ops.maximum(height, 0.0) * (1.0 + iou_threshold)
    row = ops.arange(ops.shape(boxes)[1])
    overlap = (shared > area[:, :, None] + area[:, None, :]) & (row[None, :] < row[:, None])
    if groups is not None:
        overlap = overlap & (groups[:, :, None] == groups[:, None, :])
    return ops.any(overlap, axis=2)


def nms_by_level(boxes, scores, iou_threshold, max_output, valid=None):
    """`nms` with one group per level, computed level by level.

    The result equals that of `nms` with `groups`. Memory grows with B · N_l² of one level instead of B · (Σ N_l)².

    Args:
        boxes: float `[B, N, 4]`, the rows of all levels one after the other.
        scores: list (levels) of float `[B, N_l]`, the N_l of which add up to N.
        iou_threshold: as for `nms`.
        max_output: as for `nms`.
        valid: bool `[B, N]`, rows to use. None: all.

    Returns:
        `(indices, valid)` as from `nms`; the indices are rows of `boxes`.
    """
    kept, best, first = [], [], 0
    for score in scores:
        last = first + score.shape[1]
        usable = None if valid is None else valid[:, first:last]
        limit = min(max_output, last - first)
        index, used = nms(boxes[:, first:last], score, iou_threshold, limit, valid=usable)
        kept.append(index + first)
        best.append(ops.where(used, ops.take_along_axis(ops.cast(score, "float32"), index, axis=1), float("-inf")))
        first = last
    kept, best = ops.concatenate(kept, axis=1), ops.stop_gradient(ops.concatenate(best, axis=1))
    limit = min(max_output, best.shape[1])
    best, order = ops.top_k(best, limit)  # ties: the lower row comes first, as levels and their rows are in order
    valid = best > float("-inf")
    kept = ops.where(valid, ops.take_along_axis(kept, order, axis=1), 0)
    missing = [[0, 0], [0, max_output - limit]]
    return ops.pad(ops.cast(kept, "int32"), missing), ops.pad(valid, missing)


def prepare(boxes, scores, valid):
    """The arguments of `nms` as every implementation takes them.

    Returns:
        `(boxes, scores)`: float32 without gradient; the score is -inf in rows that are NaN or not valid.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    scores = ops.stop_gradient(ops.cast(scores, "float32"))
    used = scores > float("-inf")
    if valid is not None:
        used = used & ops.cast(valid, "bool")
    return boxes, ops.where(used, scores, float("-inf"))


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
