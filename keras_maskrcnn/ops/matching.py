"""Assignment of anchors or proposals to ground truth."""

from keras import ops

from keras_maskrcnn.ops import boxes as box_ops

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match(candidates, truth, valid, crowd, high, low, keep_best=False, crowd_cover=0.5, usable=None):
    """Assign a ground-truth box and a role to each candidate box.

    A candidate is positive if its highest IoU is at least `high`, negative if it is below `low`, and ignored otherwise:
    with `low, high = 0.3, 0.7`, maximum IoUs of 0.8, 0.5 and 0.2 are positive, ignored and negative. With `keep_best`,
    the candidates with the highest IoU for an object (ties included) are positive whatever that IoU is, so that every
    object has a positive (Faster R-CNN, section 3.1.2). With `keep_best="one_each"`, every object instead gets one
    candidate of its own, which is positive and assigned to it even if another object overlaps it more: the pair of the
    highest IoU is fixed first, then the highest among the objects and candidates that are left, and so on (`match` in
    `layers/box_utils.py` of YOLACT; ties: the lower row first).

    Crowd regions are never matched. A negative with at least `crowd_cover` of its own area inside the box of a crowd
    region is ignored, because it may contain a single instance.

    Args:
        candidates: float32 `[A, 4]` or `[B, A, 4]`.
        truth: float32 `[B, N, 4]`, padded ground-truth boxes.
        valid: bool `[B, N]`, False for padding.
        crowd: bool `[B, N]`.
        high: minimum IoU of a positive.
        low: IoU below which a candidate is negative.
        keep_best: False, True, or "one_each".
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
    if keep_best == "one_each":
        own, index = _one_each(overlap, index)
        positive = ops.logical_or(positive, own)
    elif keep_best:
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


def _one_each(overlap, index):
    """A candidate for each object, in the order of the overlaps.

    Objects propose to the candidate that they overlap most; of several objects a candidate keeps the one with the
    highest overlap, and the others propose to their next one. As both sides rank pairs by the same number, the result
    is that of fixing the highest pair first (Gale and Shapley 1962), in a few steps instead of one per object.

    Args:
        overlap: float32 `[B, N, A]`, -1 where there is no object.
        index: int32 `[B, A]`, the object of each candidate otherwise.

    Returns:
        (own, index): bool `[B, A]`, the candidates that an object got; int32 `[B, A]` with their objects.
    """
    overlap, row = ops.stop_gradient(overlap), ops.arange(overlap.shape[1])
    places = ops.arange(ops.shape(overlap)[2])

    def proposals(free):
        return ops.max(free, axis=2), ops.cast(ops.argmax(free, axis=2), places.dtype)

    def refused(free):
        best, place = proposals(free)
        rivals = (place[:, :, None] == place[:, None, :]) & (best > 0)[:, :, None] & (best > 0)[:, None, :]
        level = (best[:, None, :] == best[:, :, None]) & (row[None, :] < row[:, None])
        return ops.any(rivals & ((best[:, None, :] > best[:, :, None]) | level), axis=2), place

    def pending(free):
        return ops.any(refused(free)[0])

    def step(free):
        lost, place = refused(free)
        return (ops.where(lost[..., None] & (places == place[..., None]), -1.0, free),)

    (free,) = ops.while_loop(pending, step, (overlap,))
    best, place = proposals(free)
    pairs = (best > 0)[..., None] & (places == place[..., None])
    own = ops.any(pairs, axis=1)
    return own, ops.where(own, ops.argmax(ops.cast(pairs, "int32"), axis=1), index)


def _inside_crowd(candidates, truth, crowd, share):
    """Bool `[B, A]`: candidates with at least `share` of their area inside one crowd region."""
    own = ops.maximum(box_ops.area(candidates), 1e-6)
    shared = box_ops.intersection(truth, candidates) / own[..., None, :]
    return ops.any(ops.logical_and(crowd[..., None], shared >= share), axis=1)
