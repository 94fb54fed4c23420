"""Assignment of anchors or proposals to ground truth."""

from keras import ops

from keras_maskrcnn.ops import boxes as box_ops

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match(candidates, truth, valid, crowd, high, low, keep_best=False, crowd_cover=0.5, usable=None):
    """Assign a ground-truth box and a role to each candidate box.

    A candidate is positive if its highest IoU is at least `high`, negative if it is below `low`, and ignored otherwise:
    with `low, high = 0.3, 0.7`, maximum IoUs of 0.8, 0.5 and 0.2 are positive, ignored and negative. With `keep_best`,
    the candidates with the highest IoU for an object (ties included) are positive whatever that IoU is, so that every
    object has a positive (Faster R-CNN, section 3.1.2).

    Crowd regions are never matched. A negative with at least `crowd_cover` of its own area inside the box of a crowd
    region is ignored, because it may contain a single instance.

    Args:
        candidates: float32 `[A, 4]` or `[B, A, 4]`.
        truth: float32 `[B, N, 4]`, padded ground-truth boxes.
        valid: bool `[B, N]`, False for padding.
        crowd: bool `[B, N]`.
        high: minimum IoU of a positive.
        low: IoU below which a candidate is negative.
        keep_best: whether the best candidates of each object are positive.
        crowd_cover: minimum fraction of a candidate inside a crowd region for it to be ignored; None ignores none.
        usable: bool `[B, A]`, False for candidates that are always ignored, also by `keep_best`; None means all.

    Returns:
        (index, role): int32 `[B, A]`, the row in `truth` with the highest IoU; int32 `[B, A]`, 1 (positive),
        0 (negative) or -1 (ignored).
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
    negative = role == NEGATIVE
    if crowd_cover is not None:
        in_crowd = _inside_crowd(candidates, truth, ops.logical_and(valid, crowd), crowd_cover)
        role = ops.where(ops.logical_and(negative, in_crowd), IGNORED, role)
    if usable is not None:
        role = ops.where(ops.logical_and(negative, ops.logical_not(usable)), IGNORED, role)
    return ops.cast(index, "int32"), ops.cast(role, "int32")


def _inside_crowd(candidates, truth, crowd, share):
    """Bool `[B, A]`: candidates with at least `share` of their area inside one crowd region."""
    own = ops.maximum(box_ops.area(candidates), 1e-6)
    shared = box_ops.intersection(truth, candidates) / own[..., None, :]
    return ops.any(ops.logical_and(crowd[..., None], shared >= share), axis=1)
