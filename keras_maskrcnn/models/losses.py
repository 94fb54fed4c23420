"""The five losses of Mask R-CNN (`L = L_cls + L_box + L_mask` in section 3, and the two of the RPN)."""

import collections

from keras import ops

from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import rows
from keras_maskrcnn.ops.losses import binary_cross_entropy, masked_mean, smooth_l1, softmax_cross_entropy
from keras_maskrcnn.ops.matching import POSITIVE, match
from keras_maskrcnn.ops.sampling import count_positive_slots, sample

# Ground truth of a batch: boxes [B, N, 4], labels [B, N], masks [B, N, M, M], crowd and valid [B, N].
Truth = collections.namedtuple("Truth", "boxes labels masks crowd valid")

# Regions that train the second stage: boxes [B, S, 4], label [B, S] (0 is background), matched [B, S] (row in the
# truth), positive and valid [B, S]. Positives occupy the first `positive_slots` columns.
Regions = collections.namedtuple("Regions", "boxes label matched positive valid positive_slots")


def read_truth(inputs):
    """Ground truth among a model's inputs as a `Truth`."""
    kinds = {"boxes": "float32", "labels": "int32", "crowd": "bool", "valid": "bool"}
    return Truth(masks=inputs["masks"], **{name: ops.cast(inputs[name], kind) for name, kind in kinds.items()})


def anchor_roles(anchors, truth, sampling, sizes):
    """Which object each anchor belongs to, and what it is to say (Faster R-CNN, section 3.1.2).

    Args:
        anchors: float32 `[A, 4]`.
        truth: `Truth`.
        sampling: `options.AnchorSampling`.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.

    Returns:
        (matched, role), each int32 `[B, A]`, see `ops.matching.match`.
    """
    usable = None
    if sampling.cross_boundary == "ignore":
        inside = box_ops.clip(ops.tile(anchors[None], (ops.shape(sizes)[0], 1, 1)), sizes)
        usable = ops.all(inside == anchors, axis=-1)
    return match(
        anchors, truth.boxes, truth.valid, truth.crowd, sampling.high, sampling.low, keep_best=True, usable=usable
    )


def rpn_losses(logits, deltas, anchors, truth, sampling, beta, seed, sizes):
    """Objectness and box loss over a sample of anchors (Faster R-CNN, eq. 1).

    Both are divided by the number of sampled anchors, so that they keep their balance when few are positive.

    Args:
        logits: float32 `[B, A]`, all levels.
        deltas: float32 `[B, A, 4]`.
        anchors: float32 `[A, 4]`.
        truth: `Truth`.
        sampling: `options.AnchorSampling`.
        beta: of the box loss, see `ops.losses.smooth_l1`.
        seed: `keras.random.SeedGenerator`.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.

    Returns:
        (class loss, box loss), scalars.
    """
    matched, role = anchor_roles(anchors, truth, sampling, sizes)
    index, chosen = sample(role, sampling.size, sampling.positive_fraction, seed)
    count = ops.sum(ops.cast(chosen, "float32"))
    positive = rows(role, index) == POSITIVE
    error = binary_cross_entropy(rows(logits, index), ops.cast(positive, "float32"))
    target = box_ops.encode(rows(truth.boxes, rows(matched, index)), ops.take(anchors, index, axis=0))
    box_error = smooth_l1(rows(deltas, index) - target, beta)
    positive = ops.logical_and(positive, chosen)[..., None]
    return masked_mean(error, chosen, count), masked_mean(box_error, positive, count)


def sample_regions(proposals, proposal_valid, truth, sampling, seed):
    """Choose the proposals that train the second stage, usually with the objects' own boxes among them.

    Args:
        proposals: float32 `[B, P, 4]`.
        proposal_valid: bool `[B, P]`.
        truth: `Truth`.
        sampling: `options.RegionSampling`.
        seed: `keras.random.SeedGenerator`.

    Returns:
        `Regions`.
    """
    boxes, usable = proposals, proposal_valid
    if sampling.add_truth:
        boxes = ops.concatenate([truth.boxes, proposals], axis=1)
        usable = ops.concatenate([ops.logical_and(truth.valid, ops.logical_not(truth.crowd)), usable], axis=1)
    matched, role = match(
        boxes, truth.boxes, truth.valid, truth.crowd, sampling.high, sampling.low, sampling.keep_best, usable=usable
    )
    index, valid = sample(role, sampling.size, sampling.positive_fraction, seed)
    positive = ops.logical_and(rows(role, index) == POSITIVE, valid)
    matched = rows(matched, index)
    label = ops.where(positive, ops.cast(rows(truth.labels, matched), "int32"), 0)
    slots = count_positive_slots(sampling.size, sampling.positive_fraction, index.shape[1])
    boxes = ops.stop_gradient(ops.where(valid[..., None], rows(boxes, index), 0.0))
    return Regions(boxes, label, matched, positive, valid, slots)


def box_losses(logits, deltas, regions, truth, stage):
    """Classification and box loss of the second stage (Fast R-CNN, eq. 1), both divided by the number of regions.

    Args:
        logits: float32 `[B, S, K + 1]`.
        deltas: float32 `[B, S, K + 1, 4]`; those of a region's own class are trained.
        regions: `Regions`.
        truth: `Truth`.
        stage: `options.BoxStage`.

    Returns:
        (class loss, box loss), scalars.
    """
    count = ops.sum(ops.cast(regions.valid, "float32"))
    class_error = softmax_cross_entropy(logits, regions.label)
    own = ops.take_along_axis(deltas, regions.label[..., None, None], axis=2)[:, :, 0]
    target = box_ops.encode(rows(truth.boxes, regions.matched), regions.boxes, stage.delta_weights)
    box_error = smooth_l1(own - target, stage.beta)
    return masked_mean(class_error, regions.valid, count), masked_mean(box_error, regions.positive[..., None], count)


def proposal_recall(proposals, proposal_valid, truth, iou=0.5):
    """Share of the objects that some proposal overlaps by `iou` or more; 1 where there is no object."""
    instance = ops.logical_and(truth.valid, ops.logical_not(truth.crowd))
    overlap = ops.where(proposal_valid[:, None, :], box_ops.iou(truth.boxes, proposals), 0.0)
    found = ops.logical_and(ops.max(overlap, axis=2) >= iou, instance)
    total = ops.sum(ops.cast(instance, "float32"))
    return ops.where(total > 0, ops.sum(ops.cast(found, "float32")) / ops.maximum(total, 1.0), 1.0)


def mask_loss(logits, targets, weight):
    """Binary cross entropy of the region's own class, averaged over the cells of positive regions (section 3).

    Args:
        logits: float32 `[R, m, m]`.
        targets: float32 `[R, m, m]` in [0, 1].
        weight: bool `[R]`, which rows count.

    Returns:
        Scalar.
    """
    return masked_mean(binary_cross_entropy(logits, targets), weight[:, None, None])
