"""Assignment of anchors or proposals to ground truth."""

from keras import ops

from keras_maskrcnn.ops import boxes as box_ops

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match(candidates, truth, valid, crowd, high, low, keep_best=False, crowd_cover=0.5, usable=None):
    """Give each candidate box a ground-truth box and a role.

    A candidate is positive where its highest IoU is at least `high`, negative where it is below `low`, and ignored
    between. Say `low, high = 0.3, 0.7` and three candidates overlap their best object by 0.8, 0.5 and 0.2: they are
    positive, ignored, negative. With `keep_best`, the candidates that overlap an object most (ties included) are
    positive however small that overlap is, so that no object goes without (Faster R-CNN, section 3.1.2).

    Crowd regions are never matched; a negative that lies inside one by at least `crowd_cover` of its own area is
    ignored, because a single instance may well be there.

    Args:
        candidates: float32 `[A, 4]` or `[B, A, 4]`.
        truth: float32 `[B, N, 4]`, padded.
        valid: bool `[B, N]`, False for padding.
        crowd: bool `[B, N]`.
        high: lowest IoU of a positive.
        low: IoU below which a candidate is negative.
        keep_best: whether each object keeps its best candidates.
        crowd_cover: share of a candidate inside a crowd region from which it is ignored.
        usable: bool `[B, A]`, False for candidates that are ignored whatever they overlap, and that no object may keep
            as its best; None means all.

    Returns:
        (index, role): int32 `[B, A]`, the row in `truth` that each candidate overlaps most; int32 `[B, A]` of
        1 (positive), 0 (negative), -1 (ignored).
    """
    instance = ops.logical_and(valid, ops.logical_not(crowd))
    overlap = ops.where(instance[..., None], box_ops.iou(truth, candidates), -1.0)
    if usable is not None:
        overlap = ops.where(usable[:, None], overlap, -1.0)
    best = ops.max(overlap, axis=1)
    index = ops.argmax(overlap, axis=1)
    positive = best >= high
    if keep_best:
        peak = ops.max(overlap, axis=2, keepdims=True)
        positive = ops.logical_or(positive, ops.any(ops.logical_and(overlap == peak, peak > 0), axis=1))
    role = ops.where(positive, POSITIVE, ops.where(best < low, NEGATIVE, IGNORED))
    in_crowd = _inside_crowd(candidates, truth, ops.logical_and(valid, crowd), crowd_cover)
    left_out = in_crowd if usable is None else ops.logical_or(in_crowd, ops.logical_not(usable))
    role = ops.where(ops.logical_and(role == NEGATIVE, left_out), IGNORED, role)
    return ops.cast(index, "int32"), ops.cast(role, "int32")


def _inside_crowd(candidates, truth, crowd, share):
    """Bool `[B, A]`: candidates that lie inside some crowd region by `share` of their area or more."""
    own = ops.maximum(box_ops.area(candidates), 1e-6)
    shared = box_ops.intersection(truth, candidates) / own[..., None, :]
    return ops.any(ops.logical_and(crowd[..., None], shared >= share), axis=1)
