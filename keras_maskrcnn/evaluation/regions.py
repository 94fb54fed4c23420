"""Scores of the stages inside a two-stage detector.

`coco_scores` and `precision_recall` measure the output of the network; these functions measure the classification and
regression of anchors (`anchor_report`), the proposals (`proposal_recall`), and the class of each proposal before NMS
(`region_report`).
"""

import itertools

import numpy as np
from keras import ops

from keras_maskrcnn.evaluation.matching import overlap_matrix
from keras_maskrcnn.evaluation.predictions import predictions
from keras_maskrcnn.evaluation.report import rates
from keras_maskrcnn.heads.anchors import assign_anchors
from keras_maskrcnn.heads.ground_truth import ground_truth
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.losses import smooth_l1
from keras_maskrcnn.ops.matching import IGNORED, NEGATIVE, POSITIVE

# An unmatched proposal with at least this share of its area in a crowd region is not counted as background.
CROWD_COVER = 0.5


def proposal_recall(first_stage, dataset, iou=0.5, limits=(1, 10, 100), limit=None, batch_size=8):
    """Computes the share of objects that at least one of the best proposals of their image overlaps.

    Args:
        first_stage: an object whose `detect` returns proposals by descending score, as `models.first_stage.FirstStage`.
        dataset: any reader of samples. Crowd regions are not counted as objects.
        iou: minimum intersection over union of the boxes, 0..1.
        limits: numbers of proposals per image.
        limit: only the first `limit` images.
        batch_size: images per call of `detect`.

    Returns:
        dict from each of `limits` to the share of all objects, 0..1; NaN without objects.

    Raises:
        ValueError: a limit is below 1, or no image could be read.
    """
    if min(limits) < 1:
        raise ValueError(f"limits={tuple(limits)} must be 1 or more")
    found, objects = dict.fromkeys(limits, 0), 0
    answers = predictions(first_stage, dataset, 0.0, max(limits), batch_size, limit)
    for sample, proposals in answers:
        overlaps = overlap_matrix(sample, proposals, "bbox")[:, ~np.asarray(sample["crowd"], bool)]
        objects += overlaps.shape[1]
        for count in limits:
            found[count] += int((overlaps[:count] >= iou).any(axis=0).sum())
    return {count: _ratio(number, objects) for count, number in found.items()}


def candidate_counts(first_stage, dataset, high, low, limit=None, batch_size=8):
    """Counts the candidates of the second stage (proposals and ground-truth boxes) by role under an IoU rule.

    Args:
        first_stage: as for `proposal_recall`.
        dataset: any reader of samples. Crowd regions are not counted as objects.
        high: IoU from which a candidate is positive.
        low: IoU below which a candidate is negative; those in between are ignored.
        limit: only the first `limit` images.
        batch_size: images per call of `detect`.

    Returns:
        int64 `[images, 3]`: positive, negative and ignored candidates of each image.

    Raises:
        ValueError: no image could be read.
    """
    counts = []
    for sample, found in predictions(first_stage, dataset, 0.0, None, batch_size, limit):
        objects = {name: sample[name][~sample["crowd"]] for name in ("boxes", "labels", "crowd")}
        candidates = {name: np.concatenate([objects[name], found[name]]) for name in ("boxes", "labels")}
        best = overlap_matrix(objects, candidates, "bbox").max(axis=1, initial=0.0)
        counts.append([(best >= high).sum(), (best < low).sum(), ((best >= low) & (best < high)).sum()])
    return np.array(counts)


def region_report(first_stage, dataset, iou=0.5, limit=None, batch_size=8):
    """Evaluates the classification of proposals by the second stage, before NMS; background counts as a class.

    The true class of a proposal is that of the object that it overlaps most, if by `iou` or more, else background. The
    predicted class is the one of highest probability. Background proposals in a crowd region are not counted.

    Args:
        first_stage: as for `proposal_recall`; its `detect` also returns `probabilities`, float `[n, K + 1]` (column 0
            is background): `FirstStage(model, classify=True)`.
        dataset: any reader of samples.
        iou: minimum overlap with an object, 0..1.
        limit: only the first `limit` images.
        batch_size: images per call of `detect`.

    Returns:
        dict as from `precision_recall`: `classes` with "background" last, `overall` (precision, recall and F1 are
        equal), `confusion` int64 [K+1, K+1] with background last, `names`; and `accuracy`, the share of proposals with
        the correct class. NaN where a denominator is 0.

    Raises:
        ValueError: no image could be read.
    """
    names = [*dataset.class_names, "background"]
    confusion = np.zeros((len(names), len(names)), np.int64)
    answers = predictions(first_stage, dataset, 0.0, None, batch_size, limit)
    for sample, proposals in answers:
        truth, counted = _true_classes(sample, proposals, iou)
        taken = np.asarray(proposals["probabilities"]).reshape(len(truth), len(names)).argmax(axis=1)
        # Label 0, background, becomes -1: the last row and column.
        np.add.at(confusion, (truth[counted] - 1, taken[counted] - 1), 1)
    right, total = int(np.trace(confusion)), int(confusion.sum())
    counts = zip(names, np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1), strict=True)
    return {
        "classes": {name: rates(*row) for name, *row in counts},
        "overall": rates(right, total, total),
        "confusion": confusion,
        "names": names,
        "accuracy": _ratio(right, total),
    }


def anchor_report(model, batches, steps=None):
    """Measures the classification of anchors by the RPN, and its regression of positive anchors.

    All anchors with a role by the model's rules (`model.rpn.sampling`) are counted, without sampling.

    Args:
        model: a `MaskRCNN`, or any object with its `features`, `rpn` and `strides`.
        batches: batches as from `data.batches`.
        steps: number of batches; None for all of a finite iterable.

    Returns:
        dict: `accuracy`, share of positive and negative anchors classified correctly at probability 0.5, and the same
        of each role as `positive_accuracy`, `negative_accuracy`; `box_error`, smooth L1 (β of `model.rpn.stage`)
        summed over the four deltas, mean over positive anchors; `mean_iou` of decoded positive anchors and their
        objects; the numbers `positives` and `negatives`. NaN where the mean has no terms.

    Raises:
        ValueError: there is no batch.
    """
    parts = [_anchor_batch(model, {**x, **y}) for x, y in itertools.islice(batches, steps)]
    if not parts:
        raise ValueError("nothing to evaluate: there is no batch")
    positive, negative, error, overlap = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {
        "accuracy": _mean(np.concatenate([positive, negative])),
        "positive_accuracy": _mean(positive),
        "negative_accuracy": _mean(negative),
        "box_error": _mean(error),
        "mean_iou": _mean(overlap),
        "positives": len(positive),
        "negatives": len(negative),
    }


def anchor_roles(model, inputs):
    """Assigns the anchors of a batch to objects by the model's rules (`model.rpn.sampling`), without sampling.

    Args:
        model: a `MaskRCNN`, or any object with its `strides` and `rpn`.
        inputs: batch with ground truth, as `MaskRCNN` takes it.

    Returns:
        dict of NumPy arrays: `anchors` float32 `[A, 4]`; `matched` int32 `[B, A]`, row of the object; `role` int32
        `[B, A]`, 1 positive, 0 negative, -1 ignored; `crossing` bool `[B, A]`, the anchor extends beyond the image;
        `forced` bool `[B, A]`, the anchor is positive although its IoU is below `sampling.high`.
    """
    sizes, truth = ops.cast(inputs["sizes"], "float32"), ground_truth(inputs)
    anchors = np.concatenate(model.rpn.anchors.boxes(inputs["images"].shape[1:3], model.strides))
    matched, role = map(_numpy, assign_anchors(anchors, truth, model.rpn.sampling, sizes))
    overlap = _numpy(ops.where(truth["valid"][..., None], box_ops.iou(truth["boxes"], anchors), 0.0)).max(axis=1)
    beyond = anchors[None, :, 2:] > _numpy(sizes)[:, None, ::-1]
    return {
        "anchors": anchors,
        "matched": matched,
        "role": role,
        "crossing": (anchors[:, :2] < 0).any(axis=-1) | beyond.any(axis=-1),
        "forced": (role == POSITIVE) & (overlap < model.rpn.sampling.high),
    }


def anchor_counts(model, batches):
    """Counts anchors by role.

    Args:
        model: as for `anchor_roles`.
        batches: finite iterable of batches as from `data.batches`.

    Returns:
        dict of floats: `positive`, `negative`, `ignored` (without those that cross the border) and `crossing` anchors
        per image, means over the images; `forced`, share of the positive anchors; and int `all`, anchors per image.
    """
    found = [anchor_roles(model, {**x, **y}) for x, y in batches]
    role, crossing, forced = (np.concatenate([part[key] for part in found]) for key in ("role", "crossing", "forced"))
    return {
        "positive": float((role == POSITIVE).sum(axis=1).mean()),
        "negative": float((role == NEGATIVE).sum(axis=1).mean()),
        "ignored": float(((role == IGNORED) & ~crossing).sum(axis=1).mean()),
        "crossing": float(crossing.sum(axis=1).mean()),
        "all": role.shape[1],
        "forced": float(forced.sum() / max((role == POSITIVE).sum(), 1)),
    }


def _anchor_batch(model, inputs):
    """Of one batch: whether each positive and each negative is classified correctly; error and IoU of positives."""
    sizes = ops.cast(inputs["sizes"], "float32")
    features = model.features(inputs["images"], sizes, False)
    logits, deltas = (_numpy(ops.concatenate(levels, axis=1)) for levels in model.rpn(list(features.values())))
    assigned = anchor_roles(model, inputs)
    role, (image, anchor) = assigned["role"], np.nonzero(assigned["role"] == POSITIVE)
    objects = np.asarray(inputs["boxes"], np.float32)[image, assigned["matched"][image, anchor]]
    anchors = assigned["anchors"][anchor]
    error, overlap = _box_quality(deltas[image, anchor], anchors, objects, model.rpn.stage.beta)
    return logits[role == POSITIVE] >= 0, logits[role == NEGATIVE] < 0, error, overlap


def _box_quality(deltas, anchors, objects, beta):
    """Smooth L1 summed over the deltas, and IoU of the decoded anchors and their objects: float32 `[n]` each."""
    error = ops.sum(smooth_l1(deltas - box_ops.encode(objects, anchors), beta), axis=-1)
    moved = box_ops.decode(deltas, anchors)
    return _numpy(error), _numpy(box_ops.iou(moved[:, None], objects[:, None]))[:, 0, 0]


def _true_classes(sample, proposals, iou):
    """Label 0…K of each proposal, and whether it is counted: int64 `[n]`, bool `[n]`."""
    crowd = np.asarray(sample["crowd"], bool)
    overlaps = overlap_matrix(sample, proposals, "bbox")
    own = np.where(crowd, 0.0, overlaps)
    # The column of zeros for background defines the maximum for an image without objects.
    own = np.concatenate([own, np.zeros((len(own), 1))], axis=1)
    labels = np.append(np.asarray(sample["labels"], np.int64), 0)
    truth = np.where(own.max(axis=1) >= iou, labels[own.argmax(axis=1)], 0)
    in_crowd = (overlaps[:, crowd] >= CROWD_COVER).any(axis=1)
    return truth, ~((truth == 0) & in_crowd)


def _numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def _mean(values):
    return float(np.mean(values)) if len(values) else float("nan")


def _ratio(part, whole):
    return part / whole if whole else float("nan")
