"""How good the stages inside a two-stage detector are: anchors, proposals, and the classes of proposals.

`coco_scores` and `precision_recall` judge what leaves the network. These judge what happens before: whether the anchors
are told apart (`anchor_report`), whether every object has a proposal (`proposal_recall`), and what the second stage
says about each proposal before NMS (`region_report`).
"""

import itertools

import numpy as np
from keras import ops

from keras_maskrcnn.evaluation.predictions import predictions
from keras_maskrcnn.evaluation.report import _rates, format_report, overlap_matrix
from keras_maskrcnn.heads.anchors import assign_anchors
from keras_maskrcnn.heads.ground_truth import ground_truth
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.losses import smooth_l1
from keras_maskrcnn.ops.matching import NEGATIVE, POSITIVE

# A proposal that hits no object, but lies inside a crowd region by this share of its area, may well show an instance.
CROWD_COVER = 0.5


def proposal_recall(first_stage, dataset, iou=0.5, limits=(1, 10, 100), limit=None, batch_size=8):
    """Share of the objects that one of the best proposals of their picture overlaps.

    Args:
        first_stage: an object whose `detect` gives proposals by descending score, as `models.first_stage.FirstStage`.
        dataset: any reader of samples. Crowd regions are no objects.
        iou: least intersection over union of the boxes, 0..1.
        limits: numbers of proposals a picture.
        limit: only the first `limit` images.
        batch_size: images per call of `detect`.

    Returns:
        dict from each of `limits` to the share of all objects, 0..1; NaN where there is no object.

    Raises:
        ValueError: a limit is below 1, or nothing could be read.
    """
    if min(limits) < 1:
        raise ValueError(f"limits={tuple(limits)} must be 1 or more")
    found, objects = dict.fromkeys(limits, 0), 0
    answers = predictions(first_stage, dataset, 0.0, max(limits), batch_size, limit)
    for sample, proposals in answers:
        overlaps = overlap_matrix(sample, proposals, "bbox")[:, ~np.asarray(sample["crowd"], bool)]
        objects += overlaps.shape[1]
        for most in limits:
            found[most] += int((overlaps[:most] >= iou).any(axis=0).sum())
    return {most: _ratio(count, objects) for most, count in found.items()}


def region_report(first_stage, dataset, iou=0.5, limit=None, batch_size=8):
    """What the second stage says about each proposal, before any NMS; background is a class like any other.

    A proposal's true class is that of the object that it overlaps most, if by `iou` or more, else background. Its
    predicted class is the likeliest. Proposals that are background by this rule but lie in a crowd region are left out.

    Args:
        first_stage: as for `proposal_recall`, with `probabilities` float `[n, K + 1]` (column 0 is background) among
            what `detect` gives: `FirstStage(model, classify=True)`.
        dataset: any reader of samples.
        iou: least overlap with an object, 0..1.
        limit: only the first `limit` images.
        batch_size: images per call of `detect`.

    Returns:
        dict as `precision_recall` returns it: `classes` with "background" as its last, `overall` (where precision,
        recall and F1 are one and the same), `confusion` int64 [K+1, K+1] with background last, `names`; and
        `accuracy`, the share of proposals whose class is right. NaN for a ratio of nothing to nothing.

    Raises:
        ValueError: nothing could be read.
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
        "classes": {name: _rates(*row) for name, *row in counts},
        "overall": _rates(right, total, total),
        "confusion": confusion,
        "names": names,
        "accuracy": _ratio(right, total),
    }


def format_regions(report):
    """A table of `region_report` for a person: its accuracy, then the lines of `format_report`."""
    total = int(report["confusion"].sum())
    return f"{report['accuracy']:.3f} of {total} proposals have the right class\n\n{format_report(report)}"


def anchor_report(model, batches, steps=None):
    """How well the RPN tells anchors apart, and how well it moves the positive ones. No anchor is sampled.

    Every anchor counts to which the model's own rules (`rpn_sampling`) give a role, as in the loss.

    Args:
        model: a `MaskRCNN`, or any object with its `features`, `rpn`, `strides`, `anchors`, `rpn_sampling` and
            `rpn_stage`.
        batches: what `data.batches` gives.
        steps: how many batches; None for all, which must then come to an end.

    Returns:
        dict: `accuracy`, share of positives and negatives on the right side of probability 0.5, and the same of each
        as `positive_accuracy`, `negative_accuracy`; `box_error`, smooth L1 (β of the model's `rpn_stage`) summed over
        the four deltas, mean over the positives; `mean_iou` of the moved positives with their objects; the numbers
        `positives` and `negatives`. NaN where there is none.

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


def _anchor_batch(model, inputs):
    """Of one batch: whether each positive is right, each negative is right; error and IoU of each positive."""
    sizes = ops.cast(inputs["sizes"], "float32")
    features = model.features(inputs["images"], sizes, False)
    logits, deltas = (_numpy(ops.concatenate(levels, axis=1)) for levels in model.rpn(list(features.values())))
    anchors = np.concatenate(model.rpn.anchors.boxes(inputs["images"].shape[1:3], model.strides), axis=0)
    truth = ground_truth(inputs)
    matched, role = (_numpy(values) for values in assign_anchors(anchors, truth, model.rpn.sampling, sizes))
    image, anchor = np.nonzero(role == POSITIVE)
    objects = _numpy(truth["boxes"])[image, matched[image, anchor]]
    error, overlap = _box_quality(deltas[image, anchor], anchors[anchor], objects, model.rpn.stage.beta)
    return logits[role == POSITIVE] >= 0, logits[role == NEGATIVE] < 0, error, overlap


def _box_quality(deltas, anchors, objects, beta):
    """Smooth L1 summed over the deltas, and IoU of the moved anchors with their objects: float32 `[n]` each."""
    error = ops.sum(smooth_l1(deltas - box_ops.encode(objects, anchors), beta), axis=-1)
    moved = box_ops.decode(deltas, anchors)
    return _numpy(error), _numpy(box_ops.iou(moved[:, None], objects[:, None]))[:, 0, 0]


def _true_classes(sample, proposals, iou):
    """Label 0…K of each proposal, and whether it counts: int64 `[n]`, bool `[n]`."""
    crowd = np.asarray(sample["crowd"], bool)
    overlaps = overlap_matrix(sample, proposals, "bbox")
    own = np.where(crowd, 0.0, overlaps)
    # A column of zeros for background makes the maximum exist where a picture has no object.
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
