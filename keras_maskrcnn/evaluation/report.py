"""Precision, recall, F1 and confusion matrix of detections at one score threshold, and the threshold of highest F1."""

import numpy as np

from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.evaluation.collected import checked_kind, collect, scored_kinds
from keras_maskrcnn.evaluation.matching import match
from keras_maskrcnn.evaluation.ranked import ranked

THRESHOLDS = tuple(step / 20 for step in range(6, 20))  # 0.3 … 0.95


def precision_recall(
    model,
    dataset: Dataset,
    iou: float = 0.5,
    score_threshold: float = 0.5,
    kind: str | None = None,
    max_detections: int = 100,
    batch_size: int = 8,
    limit: int | None = None,
) -> dict:
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
    kind = checked_kind(kind, scored_kinds(model))
    found = collect(model, dataset, score_threshold, max_detections, batch_size, limit)
    return rates_at(found, score_threshold, iou, kind)


def rates_at(found, score_threshold=0.5, iou=0.5, kind=None):
    """`precision_recall` of detections that were collected before.

    Args:
        found: `Collected`.
        score_threshold: detections that score higher than this are counted.
        iou: minimum intersection over union of a match, 0..1.
        kind: "segm" or "bbox"; None takes masks if there are any.

    Returns:
        dict, see `precision_recall`.
    """
    background = len(found.class_names)
    confusion = np.zeros((background + 1, background + 1), np.int64)
    for image in found.images(found.checked_kind(kind)):
        np.add.at(confusion, match(image.above(score_threshold), iou), 1)
    return {**_summary(confusion, found.class_names), "confusion": confusion}


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
    kind = checked_kind(kind, scored_kinds(model))
    rows = ranked(collect(model, dataset, min(candidates), max_detections, batch_size, limit), kind, iou)
    kept = [rows.scores > threshold for threshold in candidates]
    f1 = [2 * rows.right[k].sum() / max(np.count_nonzero(k) + rows.objects.sum(), 1) for k in kept]
    return float(candidates[int(np.argmax(f1))])


def best_f1(found, iou=0.5, kind=None):
    """The score thresholds that maximise F1, over all classes and for each class.

    F1 changes only where a threshold passes a score, so all thresholds are compared. The one that is returned lies
    halfway between the lowest score that is counted and the next lower one. Use validation data; a threshold chosen on
    the test set biases the scores of the test set.

    Args:
        found: `Collected`.
        iou: minimum intersection over union of a match, 0..1.
        kind: "segm" or "bbox"; None takes masks if there are any.

    Returns:
        dict: `overall`: {"threshold", "precision", "recall", "f1", "true_positives", "false_positives",
        "false_negatives"}; `classes`: {name: the same}. The threshold is NaN where no detection is right.
    """
    rows = ranked(found, kind, iou)
    one_class = (rows.of(label) for label in range(1, len(rows.objects) + 1))
    return {
        "overall": _best(rows, found.score_threshold),
        "classes": {
            name: _best(part, found.score_threshold) for name, part in zip(found.class_names, one_class, strict=True)
        },
    }


def _best(rows, floor):
    """The threshold of highest F1 (the highest of equals), and the rates there."""
    objects = int(rows.objects.sum())
    counts, scores = np.arange(1, len(rows.scores) + 1), rows.scores.astype(np.float64)
    # A threshold cannot separate equal scores: only the last of them is a place to cut.
    f1 = np.where(np.append(scores[1:] < scores[:-1], True), 2 * np.cumsum(rows.right) / (counts + objects), 0.0)
    if not rows.right.any():
        return {"threshold": float("nan"), **rates(0, 0, objects)}
    last = int(f1.argmax())
    threshold = (scores[last] + np.append(scores, floor)[last + 1]) / 2
    return {"threshold": float(threshold), **rates(rows.right[: last + 1].sum(), last + 1, objects)}


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
