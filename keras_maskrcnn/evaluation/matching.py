"""Matches of detections and objects of one image by their overlaps."""

import dataclasses

import numpy as np
from pycocotools import mask as mask_tools

from keras_maskrcnn.data.run_lengths import encode_mask


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """Objects and detections of one image, and the overlap of each pair.

    Attributes:
        image: entry of the image in the COCO dictionary: `id`, `height`, `width`, `file_name`.
        objects: m COCO annotations.
        true_labels: int64 [m], 1…K.
        crowd: bool [m], regions in which detections are not counted.
        detections: n COCO results in descending order of their scores.
        labels: int64 [n], 1…K.
        scores: float32 [n].
        overlaps: float64 [n, m], see `iou_matrix`.
    """

    image: dict
    objects: list
    true_labels: np.ndarray
    crowd: np.ndarray
    detections: list
    labels: np.ndarray
    scores: np.ndarray
    overlaps: np.ndarray

    def above(self, score):
        """The same image with the detections that score higher than this."""
        count = int(np.count_nonzero(self.scores > score))
        cut = {name: getattr(self, name)[:count] for name in ("detections", "labels", "scores", "overlaps")}
        return dataclasses.replace(self, **cut)

    @property
    def same_class(self):
        """Whether a detection and an object, not a crowd, have the same class: bool [n, m]."""
        return (self.labels[:, None] == self.true_labels[None, :]) & ~self.crowd


def match_own_class(image, iou=0.5):
    """Matches detections with objects of their own class, as COCOeval does.

    In descending order of score, each detection takes the free object of its class that it overlaps most, if by `iou`
    or more. A detection without a match on a crowd region of its class is ignored.

    Args:
        image: `ImageResult`.
        iou: minimum overlap.

    Returns:
        (partner, ignored): int64 [n], the object of each detection or -1; bool [n].
    """
    partner = _greedy(np.where(image.same_class, image.overlaps, 0.0), iou)
    on_crowd = (image.labels[:, None] == image.true_labels[None, :]) & image.crowd & (image.overlaps >= iou)
    return partner, on_crowd.any(axis=1) & (partner < 0)


def match(image, iou=0.5):
    """Matches the detections of an image with its objects, first of the same class, then of other classes.

    Args:
        image: `ImageResult`.
        iou: minimum overlap.

    Returns:
        (truth, taken): int64 [p] each, one entry per pair: the class 0…K-1 of the object and that of its detection,
        -1 for background (as an index: the last row and column of the confusion matrix).
    """
    partner, ignored = match_own_class(image, iou)
    numbers = np.arange(len(image.true_labels))
    open_pairs = ((partner < 0) & ~ignored)[:, None] & ~(np.isin(numbers, partner) | image.crowd)[None, :]
    partner = np.maximum(partner, _greedy(np.where(open_pairs, image.overlaps, 0.0), iou))
    missed = image.true_labels[~np.isin(numbers, partner) & ~image.crowd]
    objects = np.append(image.true_labels, 0)[partner]  # partner -1 selects the appended 0, background
    truth = np.concatenate([objects[~ignored], missed]) - 1
    taken = np.concatenate([image.labels[~ignored], np.zeros_like(missed)]) - 1
    return truth, taken


def overlap_matrix(sample, found, kind):
    """`iou_matrix` of the detections and the objects of a sample.

    Args:
        sample: ground truth.
        found: detections.
        kind: "segm" or "bbox".
    """
    if kind == "segm":
        sides = [[encode_mask(mask) for mask in np.asarray(part["masks"])] for part in (found, sample)]
    else:
        boxes = [np.asarray(part["boxes"], np.float64).reshape(-1, 4) for part in (found, sample)]
        sides = [np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1) for box in boxes]
    return iou_matrix(*sides, sample["crowd"])


def iou_matrix(found, true, crowd):
    """Intersection over union of every detection and object; for crowd regions, intersection over detection area.

    Args:
        found: n boxes [x, y, width, height] or run lengths.
        true: m of the same.
        crowd: m flags.

    Returns:
        float64 [n, m].
    """
    shape = (len(found), len(true))
    if 0 in shape:
        return np.zeros(shape)
    return np.asarray(mask_tools.iou(found, true, [int(flag) for flag in crowd]), np.float64).reshape(shape)


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
