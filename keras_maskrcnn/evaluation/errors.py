"""The error types of TIDE: what a detector's lost AP consists of.

D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
section 2.2. With the IoU thresholds t_f = 0.5 (foreground) and t_b = 0.1 (background), a detection that matches no
object is the first of these that applies, in the order of the authors' program (tidecv 1.0):

    localisation    its IoU with an object of its class is at least t_b and below t_f
    classification  its IoU with an object of another class is t_f or more
    duplicate       its IoU with an object of its class is t_f or more, which a detection of higher score has taken
    background      its IoU with every object is t_b or less
    both            the rest: its IoU with an object of another class is between t_b and t_f

and an object is missed if it is neither matched nor the object of a classification or localisation error.

The weight of a type is dAP: the AP at t_f after all errors of this type, and no others, are repaired, minus the AP
before. Repairs: the class or place is set to that of the object, once per object, for the error of highest score;
further errors on the same object, and those on matched objects, are removed; duplicate, background and "both" are
removed; missed objects no longer count as objects. Beside them: all false positives are removed, or all objects that
no detection matches no longer count (false negatives). The values do not add up to the lost AP.
"""

import typing

import numpy as np

from keras_maskrcnn.evaluation.matching import match_own_class
from keras_maskrcnn.evaluation.ranked import precision_envelope

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
RIGHT, IGNORED = "right", "ignored"


class ImageErrors(typing.NamedTuple):
    """What is wrong in one image.

    Attributes:
        kinds: str [n], one of `ERRORS`, "right" or "ignored" (on a crowd region), of each detection.
        partner: int64 [n], the object that the detection is right about or that the error is about; -1 for none.
        repaired: bool [n], the error becomes a right detection when its type is repaired.
        matched: bool [m], objects that a right detection has.
        missed: bool [m].
    """

    kinds: np.ndarray
    partner: np.ndarray
    repaired: np.ndarray
    matched: np.ndarray
    missed: np.ndarray


def image_errors(image, foreground=0.5, background=0.1):
    """The type of each error in one image.

    Args:
        image: `matching.ImageResult`.
        foreground: IoU t_f.
        background: IoU t_b.

    Returns:
        `ImageErrors`.
    """
    partner, ignored = match_own_class(image, foreground)
    same = image.same_class
    own, own_object = _largest(np.where(same, image.overlaps, 0.0))
    other, other_object = _largest(np.where(~same & ~image.crowd, image.overlaps, 0.0))
    rules = {
        RIGHT: partner >= 0,
        IGNORED: ignored,
        "localisation": (own >= background) & (own < foreground),
        "classification": other >= foreground,
        "duplicate": own >= foreground,
        "background": np.maximum(own, other) <= background,
    }
    kinds = np.select(list(rules.values()), list(rules), "both")
    about_own, about_other = (np.isin(kinds, names) for names in (("localisation", "duplicate"), _OTHER))
    partner = np.select([partner >= 0, about_own, about_other], [partner, own_object, other_object], -1)
    numbers = np.arange(len(image.true_labels))
    matched = np.isin(numbers, partner[kinds == RIGHT])
    claims = np.flatnonzero(np.isin(kinds, ("localisation", "classification")) & ~np.isin(partner, numbers[matched]))
    claimed, first = np.unique(partner[claims], return_index=True)  # the first is that of highest score
    repaired = np.isin(np.arange(len(kinds)), claims[first])
    return ImageErrors(kinds, partner, repaired, matched, ~matched & ~np.isin(numbers, claimed) & ~image.crowd)


_OTHER = ("classification", "both")  # errors about an object of another class


def _largest(overlaps):
    """The largest overlap of each row, and its column: 0 and column 0 in an image without objects."""
    overlaps = np.pad(overlaps, ((0, 0), (0, 1)))
    return overlaps.max(axis=1), overlaps.argmax(axis=1)


def tide(found, kind=None, foreground=0.5, background=0.1):
    """Counts the errors by type and computes the AP that each type costs.

    Args:
        found: `Collected`.
        kind: "segm" or "bbox"; None takes masks if there are any.
        foreground: IoU t_f of a match.
        background: IoU t_b up to which a detection lies on background.

    Returns:
        dict: `AP`, COCO's AP at the IoU t_f; `errors`: {type: {"count", "dAP"}} for the six types of `ERRORS`;
        `false_positives` and `false_negatives`: the same over all detections without a match, and over all objects
        without one. AP is NaN without objects. All detections count, also those of low scores.

    Raises:
        ValueError: the detections do not have this kind, or the thresholds are not in order.
    """
    if not 0 < background < foreground <= 1:
        raise ValueError(f"background={background} must be below foreground={foreground}, both in (0, 1]")
    rows = _all_errors(found, found.checked_kind(kind), foreground, background)
    classes = np.flatnonzero(rows.objects) + 1
    before = _mean_ap(classes, rows.labels, rows.right, rows.objects)

    def gain(keep=slice(None), labels=rows.labels, right=rows.right, objects=rows.objects):
        return _mean_ap(classes, labels[keep], right[keep], objects) - before

    errors = {}
    for name in ERRORS[:-1]:
        chosen = rows.kinds == name
        fixed = chosen & rows.repaired
        labels = np.where(fixed, rows.true_labels, rows.labels)
        errors[name] = _entry(chosen.sum(), gain(~chosen | fixed, labels, rows.right | fixed))
    errors["missed"] = _entry(rows.missed.sum(), gain(objects=rows.objects - rows.missed))
    wrong, unmatched = np.count_nonzero(~rows.right), rows.objects.sum() - np.count_nonzero(rows.right)
    matched = np.bincount(rows.labels[rows.right] - 1, minlength=len(rows.objects))
    return {
        "AP": before,
        "errors": errors,
        "false_positives": _entry(wrong, gain(rows.right)),
        "false_negatives": _entry(unmatched, gain(objects=matched)),
    }


def _entry(count, gain):
    return {"count": int(count), "dAP": float(gain)}


class _Errors(typing.NamedTuple):
    """The detections of all images, without ignored ones, in descending order of score; and objects per class."""

    labels: np.ndarray  # int64 [n], 1…K
    true_labels: np.ndarray  # int64 [n], of the object that the detection is about, 0 for none
    kinds: np.ndarray
    repaired: np.ndarray
    right: np.ndarray
    objects: np.ndarray  # int64 [K]
    missed: np.ndarray  # int64 [K]


def _all_errors(found, kind, foreground, background):
    parts = [(np.zeros(0, np.float32), *(np.zeros(0, dtype) for dtype in (np.int64, np.int64, "U14", bool)))]
    objects, missed = np.zeros((2, len(found.class_names)), np.int64)
    for image in found.images(kind):
        errors = image_errors(image, foreground, background)
        kept = errors.kinds != IGNORED
        about = np.append(image.true_labels, 0)[errors.partner]
        parts.append([each[kept] for each in (image.scores, image.labels, about, errors.kinds, errors.repaired)])
        np.add.at(objects, image.true_labels[~image.crowd] - 1, 1)
        np.add.at(missed, image.true_labels[errors.missed] - 1, 1)
    scores, *columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-scores, kind="stable")
    labels, about, kinds, repaired = (column[order] for column in columns)
    return _Errors(labels, about, kinds, repaired, kinds == RIGHT, objects, missed)


def _mean_ap(classes, labels, right, objects):
    """Mean AP over the classes that have objects before any repair; NaN if none has.

    A class whose objects no longer count has AP 0 if detections of it are left, and is left out otherwise. If all are
    left out, the mean is 1: nothing is wrong any more.
    """
    if not len(classes):
        return float("nan")
    own = {label: right[labels == label] for label in classes}
    counted = [label for label in classes if objects[label - 1] or len(own[label])]
    values = [_ap(own[label], objects[label - 1]) for label in counted]
    return float(np.mean(values)) if values else 1.0


def _ap(right, objects):
    return precision_envelope(right, objects).mean() if objects else 0.0
