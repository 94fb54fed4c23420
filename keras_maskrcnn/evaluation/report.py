"""What a person asks after training: how many are found, how many are wrong, what is taken for what."""

import math

import numpy as np
from pycocotools import mask as mask_tools

from keras_maskrcnn.evaluation.coco import FIGURES, KINDS, encode_mask
from keras_maskrcnn.evaluation.predictions import predictions

THRESHOLDS = tuple(step / 20 for step in range(6, 20))  # 0.3 … 0.95


def precision_recall(
    model, dataset, iou=0.5, score_threshold=0.5, kind="segm", max_detections=100, batch_size=8, limit=None
):
    """Precision, recall and F1 at one working point, and the confusion matrix.

    Detections are taken by descending score. Each first looks for a free object of its own class with an overlap of at
    least `iou`: a true positive. Those left over that lie on a crowd region of their class are not counted. The rest
    then look for a free object of any other class: a confusion. What remains was background taken for an object, or an
    object taken for background. So the diagonal of the matrix holds the true positives, a column sums to all detections
    of a class, a row to all its objects.

    Args:
        model: an object with `detect`, as `MaskRCNN`.
        dataset: any reader of samples.
        iou: least intersection over union of a match, 0..1.
        score_threshold: detections scoring less are ignored.
        kind: overlap of masks ("segm") or of boxes ("bbox").
        max_detections: most detections an image.
        batch_size: images per call of `detect`.
        limit: only the first `limit` images.

    Returns:
        dict: `classes`: {name: {"precision", "recall", "f1", "true_positives", "false_positives", "false_negatives"}};
        `overall`: the same over all classes; `confusion`: int64 [K+1, K+1], rows are the truth, columns the detection,
        the last of each is background; `names`: the K names and "background". Precision is NaN where nothing was
        detected, recall NaN where there is no object.

    Raises:
        ValueError: `kind` is neither "segm" nor "bbox", or nothing could be read.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    background = len(dataset.class_names)
    confusion = np.zeros((background + 1, background + 1), np.int64)
    for sample, found in predictions(model, dataset, score_threshold, max_detections, batch_size, limit):
        truth, taken = match(sample, found, iou, kind)
        np.add.at(confusion, (truth, taken), 1)
    return {**_summary(confusion, dataset.class_names), "confusion": confusion}


def best_threshold(
    model, dataset, iou=0.5, kind="segm", candidates=THRESHOLDS, max_detections=100, batch_size=8, limit=None
):
    """The score threshold at which F1 over all classes is highest: the working point to use on other data.

    Choose it on training or validation data; on the test set it would flatter the figures.

    Args:
        model: an object with `detect`, as `MaskRCNN`.
        dataset: any reader of samples.
        iou: least intersection over union of a match, 0..1.
        kind: overlap of masks ("segm") or of boxes ("bbox").
        candidates: thresholds to try; of equals the first is taken.
        max_detections: most detections an image.
        batch_size: images per call of `detect`.
        limit: only the first `limit` images.

    Returns:
        float, one of `candidates`.
    """
    right, taken = (np.zeros(len(candidates)) for _ in range(2))
    for sample, found in predictions(model, dataset, min(candidates), max_detections, batch_size, limit):
        for index, threshold in enumerate(candidates):
            kept = {name: values[found["scores"] >= threshold] for name, values in found.items()}
            truth, label = match(sample, kept, iou, kind)
            right[index] += np.count_nonzero((truth == label) & (truth >= 0))
            taken[index] += np.count_nonzero(truth >= 0) + np.count_nonzero(label >= 0)
    return float(candidates[np.argmax(2 * right / np.maximum(taken, 1))])


def match(sample, found, iou=0.5, kind="segm"):
    """Matches the detections in one image with its objects.

    Args:
        sample: the ground truth.
        found: the detections, `scores` in descending order.
        iou: least overlap.
        kind: "segm" or "bbox".

    Returns:
        truth, taken: int64 [p] each, one entry for every pair: the class 0…K-1 of the object and that of its detection,
        with -1 for background. (-1 is also the last row and column of a matrix of K+1.)
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
    objects = np.append(true_labels, 0)[partner]  # partner -1 picks the appended 0, which stands for background
    truth = np.concatenate([objects[counted], missed]) - 1
    taken = np.concatenate([labels[counted], np.zeros_like(missed)]) - 1
    return truth, taken


def overlap_matrix(sample, found, kind):
    """Intersection over union of every detection with every object; with a crowd, over the detection's area alone.

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


def _greedy(overlaps, least):
    """For each row in turn the free column of largest overlap, or -1 if none reaches `least`. int64 [rows]."""
    free = overlaps.copy()
    partner = np.full(len(free), -1, np.int64)
    # A row without one possible column costs nothing: the loop visits the others only.
    for row in np.flatnonzero((overlaps >= least).any(axis=1) & (overlaps > 0).any(axis=1)):
        column = int(free[row].argmax())
        if free[row, column] >= least and free[row, column] > 0:
            partner[row] = column
            free[:, column] = 0.0
    return partner


def _summary(confusion, class_names):
    true_positives = np.diag(confusion)[:-1]
    detected = confusion.sum(axis=0)[:-1]
    objects = confusion.sum(axis=1)[:-1]
    rows = zip(class_names, true_positives, detected, objects, strict=True)
    return {
        "classes": {name: _rates(*counts) for name, *counts in rows},
        "overall": _rates(true_positives.sum(), detected.sum(), objects.sum()),
        "names": [*class_names, "background"],
    }


def _rates(true_positives, detected, objects):
    """Precision, recall and F1 from the counts; NaN for a ratio of nothing to nothing."""

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
    """A table of `coco_scores` for a person: one line a figure, then one a class; "-" where there is no figure."""
    kinds = [kind for kind in KINDS if f"{kind}_AP" in scores]
    table = [["", *kinds], *[[figure, *(_number(scores[f"{k}_{figure}"]) for k in kinds)] for figure in FIGURES]]
    lines = _columns(table)
    if per_class := scores.get("per_class"):
        rows = [[name, *(_number(found[f"{kind}_AP"]) for kind in kinds)] for name, found in per_class.items()]
        lines += ["", *_columns([["AP by class", *kinds], *rows])]
    return "\n".join(lines)


def format_report(report):
    """A table of `precision_recall` for a person, with the confusion matrix below it (rows: truth)."""
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
    """Lines of text: the first column to the left, all others to the right, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
