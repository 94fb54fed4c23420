"""Precision, recall, F1 and confusion matrix of detections at one score threshold; text tables of scores."""

import math

import numpy as np
from pycocotools import mask as mask_tools

from keras_maskrcnn.evaluation.coco import FIGURES, KINDS, encode_mask, scored_kinds
from keras_maskrcnn.evaluation.predictions import predictions

THRESHOLDS = tuple(step / 20 for step in range(6, 20))  # 0.3 … 0.95


def precision_recall(
    model, dataset, iou=0.5, score_threshold=0.5, kind=None, max_detections=100, batch_size=8, limit=None
):
    """Computes precision, recall and F1 at one score threshold, and the confusion matrix.

    Detections are matched in order of descending score. Each is first matched with the free object of its own class
    that it overlaps most, if by `iou` or more: a true positive. Unmatched detections on a crowd region of their class
    are not counted. The others are matched with free objects of other classes by the same rule: confusions. The
    remaining detections and objects are paired with background. The diagonal of the matrix thus holds the true
    positives; a column sums to all detections of a class, a row to all its objects.

    Args:
        model: an object with `detect`, as `MaskRCNN`.
        dataset: any reader of samples.
        iou: minimum intersection over union of a match, 0..1.
        score_threshold: minimum score of a detection.
        kind: overlap of masks ("segm") or of boxes ("bbox"); None takes masks if the model predicts them.
        max_detections: maximum number of detections per image.
        batch_size: images per call of `detect`.
        limit: only the first `limit` images.

    Returns:
        dict: `classes`: {name: {"precision", "recall", "f1", "true_positives", "false_positives", "false_negatives"}};
        `overall`: the same over all classes; `confusion`: int64 [K+1, K+1], rows are ground truth, columns detections,
        background last; `names`: the K names and "background". Precision is NaN without detections, recall NaN without
        objects.

    Raises:
        ValueError: `kind` is neither "segm" nor "bbox", or no image could be read.
    """
    kind = scored_kinds(model)[-1] if kind is None else kind
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    background = len(dataset.class_names)
    confusion = np.zeros((background + 1, background + 1), np.int64)
    for sample, found in predictions(model, dataset, score_threshold, max_detections, batch_size, limit):
        truth, taken = match(sample, found, iou, kind)
        np.add.at(confusion, (truth, taken), 1)
    return {**_summary(confusion, dataset.class_names), "confusion": confusion}


def best_threshold(
    model, dataset, iou=0.5, kind=None, candidates=THRESHOLDS, max_detections=100, batch_size=8, limit=None
):
    """Finds the score threshold with the highest F1 over all classes.

    Use training or validation data; a threshold chosen on the test set biases the scores of the test set.

    Args:
        model: an object with `detect`, as `MaskRCNN`.
        dataset: any reader of samples.
        iou: minimum intersection over union of a match, 0..1.
        kind: overlap of masks ("segm") or of boxes ("bbox"); None takes masks if the model predicts them.
        candidates: thresholds to compare; the first of equals is returned.
        max_detections: maximum number of detections per image.
        batch_size: images per call of `detect`.
        limit: only the first `limit` images.

    Returns:
        float, one of `candidates`.
    """
    kind = scored_kinds(model)[-1] if kind is None else kind
    right, taken = (np.zeros(len(candidates)) for _ in range(2))
    for sample, found in predictions(model, dataset, min(candidates), max_detections, batch_size, limit):
        for index, threshold in enumerate(candidates):
            kept = {name: values[found["scores"] > threshold] for name, values in found.items()}
            truth, label = match(sample, kept, iou, kind)
            right[index] += np.count_nonzero((truth == label) & (truth >= 0))
            taken[index] += np.count_nonzero(truth >= 0) + np.count_nonzero(label >= 0)
    return float(candidates[np.argmax(2 * right / np.maximum(taken, 1))])


def match(sample, found, iou=0.5, kind="segm"):
    """Matches the detections in one image with its objects.

    Args:
        sample: ground truth.
        found: detections, `scores` in descending order.
        iou: minimum overlap.
        kind: "segm" or "bbox".

    Returns:
        (truth, taken): int64 [p] each, one entry per pair: the class 0…K-1 of the object and that of its detection,
        -1 for background (as an index: the last row and column of the confusion matrix).
    """
    crowd = np.asarray(sample["crowd"], bool)
    true_labels = np.asarray(sample["labels"], np.int64)
    labels = np.asarray(found["labels"], np.int64)
    overlaps = overlap_matrix(sample, found, kind)
    same = labels[:, None] == true_labels[None, :]

    partner = _greedy(np.where(same & ~crowd, overlaps, 0.0), iou)
    on_crowd = (np.where(same & crowd, overlaps, 0.0) >= iou).any(axis=1) & (partner < 0)
    taken_objects = np.isin(np.arange(len(true_labels)), partner)
    open_pairs = ((partner < 0) & ~on_crowd)[:, None] & ~(taken_objects | crowd)[None, :]
    partner = np.maximum(partner, _greedy(np.where(open_pairs, overlaps, 0.0), iou))

    counted = ~on_crowd
    missed = true_labels[~np.isin(np.arange(len(true_labels)), partner) & ~crowd]
    objects = np.append(true_labels, 0)[partner]  # partner -1 selects the appended 0, background
    truth = np.concatenate([objects[counted], missed]) - 1
    taken = np.concatenate([labels[counted], np.zeros_like(missed)]) - 1
    return truth, taken


def overlap_matrix(sample, found, kind):
    """Intersection over union of every detection and object; for crowd regions, intersection over detection area.

    Returns:
        float64 [detections, objects].
    """
    shape = (len(found["labels"]), len(sample["labels"]))
    if 0 in shape:
        return np.zeros(shape)
    if kind == "segm":
        sides = [[encode_mask(mask) for mask in np.asarray(part["masks"])] for part in (found, sample)]
    else:
        boxes = [np.asarray(part["boxes"], np.float64) for part in (found, sample)]
        sides = [np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1) for box in boxes]
    crowd = [int(flag) for flag in sample["crowd"]]
    return np.asarray(mask_tools.iou(*sides, crowd), np.float64).reshape(shape)


def _greedy(overlaps, minimum):
    """The free column of largest overlap of each row in turn, or -1 if it is below `minimum`: int64 [rows]."""
    free = overlaps.copy()
    partner = np.full(len(free), -1, np.int64)
    # Rows without a candidate are skipped, for speed.
    for row in np.flatnonzero((overlaps >= minimum).any(axis=1) & (overlaps > 0).any(axis=1)):
        column = int(free[row].argmax())
        if free[row, column] >= minimum and free[row, column] > 0:
            partner[row] = column
            free[:, column] = 0.0
    return partner


def _summary(confusion, class_names):
    true_positives = np.diag(confusion)[:-1]
    detected = confusion.sum(axis=0)[:-1]
    objects = confusion.sum(axis=1)[:-1]
    rows = zip(class_names, true_positives, detected, objects, strict=True)
    return {
        "classes": {name: rates(*counts) for name, *counts in rows},
        "overall": rates(true_positives.sum(), detected.sum(), objects.sum()),
        "names": [*class_names, "background"],
    }


def rates(true_positives, detected, objects):
    """Precision, recall and F1 from counts; NaN where the denominator is 0."""

    def ratio(part, whole):
        return float(part / whole) if whole else float("nan")

    return {
        "precision": ratio(true_positives, detected),
        "recall": ratio(true_positives, objects),
        "f1": ratio(2 * true_positives, detected + objects),
        "true_positives": int(true_positives),
        "false_positives": int(detected - true_positives),
        "false_negatives": int(objects - true_positives),
    }


def format_scores(scores):
    """Formats `coco_scores` as a text table: one line per score, then one per class; "-" for NaN."""
    kinds = [kind for kind in KINDS if f"{kind}_AP" in scores]
    table = [["", *kinds], *[[figure, *(_number(scores[f"{k}_{figure}"]) for k in kinds)] for figure in FIGURES]]
    lines = _columns(table)
    if per_class := scores.get("per_class"):
        rows = [[name, *(_number(found[f"{kind}_AP"]) for kind in kinds)] for name, found in per_class.items()]
        lines += ["", *_columns([["AP by class", *kinds], *rows])]
    return "\n".join(lines)


def format_report(report):
    """Formats `precision_recall` as a text table, followed by the confusion matrix (rows: ground truth)."""
    counts = ("true_positives", "false_positives", "false_negatives")
    rows = [
        [name, *(_number(rates[key]) for key in ("precision", "recall", "f1")), *(str(rates[key]) for key in counts)]
        for name, rates in [*report["classes"].items(), ("overall", report["overall"])]
    ]
    table = _columns([["", "precision", "recall", "F1", "right", "wrong", "missed"], *rows])
    names = report["names"]
    matrix = [[name, *map(str, row)] for name, row in zip(names, report["confusion"].tolist(), strict=True)]
    return "\n".join([*table, "", *_columns([["truth \\ found", *names], *matrix])])


def _number(value):
    return "-" if math.isnan(value) else f"{value:.3f}"


def _columns(rows):
    """Lines of text: the first column left-aligned, all others right-aligned, two spaces between columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
