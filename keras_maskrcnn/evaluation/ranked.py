"""The detections of all images in one ranking: what precision, recall, F1, AP and calibration are computed from."""

import typing

import numpy as np

from keras_maskrcnn.evaluation.matching import match_own_class

RECALLS = np.linspace(0, 1, 101)  # of COCOeval


class Ranked(typing.NamedTuple):
    """Detections in descending order of score; those on crowd regions are left out.

    Attributes:
        labels: int64 [n], 1…K.
        scores: float32 [n].
        right: bool [n], matched with an object of the same class.
        objects: int64 [K], number of objects of each class.
    """

    labels: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    objects: np.ndarray

    def of(self, label):
        """The rows and the number of objects of one class."""
        own = self.labels == label
        return Ranked(self.labels[own], self.scores[own], self.right[own], self.objects[label - 1 : label])


def ranked(found, kind=None, iou=0.5):
    """Matches all detections with objects of their own class and ranks them by score.

    Args:
        found: `Collected`.
        kind: "segm" or "bbox"; None takes masks if there are any.
        iou: minimum intersection over union of a match, 0..1.

    Returns:
        `Ranked`.
    """
    labels, scores, right = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    objects = np.zeros(len(found.class_names), np.int64)
    for image in found.images(found.checked_kind(kind)):
        partner, ignored = match_own_class(image, iou)
        labels.append(image.labels[~ignored])
        scores.append(image.scores[~ignored])
        right.append(partner[~ignored] >= 0)
        np.add.at(objects, image.true_labels[~image.crowd] - 1, 1)
    order = np.argsort(-np.concatenate(scores), kind="stable")  # as COCOeval
    return Ranked(*(np.concatenate(parts)[order] for parts in (labels, scores, right)), objects)


def precision_envelope(right, objects):
    """Precision at COCOeval's 101 recalls: the highest precision at that recall or a higher one, 0 where none is.

    Args:
        right: bool [n] in descending order of score.
        objects: number of objects, at least 1.

    Returns:
        float64 [101]; its mean is the average precision.
    """
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(hits / objects, RECALLS, side="left")]
