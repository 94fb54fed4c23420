"""Scores of semantic segmentation: mean IoU, accuracies (Long et al. 2015, section 5) and boundary F.

With n[i, j] the number of pixels of class i that are predicted as class j, over all images:

    pixel accuracy = Σ n[i, i] / Σ n        accuracy of class i = n[i, i] / Σ_j n[i, j]
    IoU of class i = n[i, i] / (Σ_j n[i, j] + Σ_j n[j, i] - n[i, i])

Boundary F (Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?", section 3): in an image,
precision is the share of a class's predicted boundary pixels that are near a true one, recall the reverse, near being
0.75 % of the image's diagonal; F is their harmonic mean, and the score of a class its mean over the images that have
the class on either side. Pixels with the ignored label take part in nothing.
"""

import math

import numpy as np

from keras_maskrcnn.data.semantic import label_map, with_label_map
from keras_maskrcnn.evaluation.boundary import boundary_width, dilated, inner_boundary
from keras_maskrcnn.evaluation.predictions import predictions
from keras_maskrcnn.evaluation.together import shared_out

NEAR = 0.0075  # of the diagonal of the image


class SemanticScores:
    """Sums of the scores over images.

    Args:
        names: names of the labels 0, 1, …, K.
        ignore: label of the pixels that do not count.

    Attributes:
        confusion: int64 `[K + 1, K + 1]`, pixels by true and predicted label.
    """

    def __init__(self, names, ignore=255):
        self.names, self.ignore = list(names), ignore
        self.confusion = np.zeros((len(self.names),) * 2, np.int64)
        self._boundaries = np.zeros((len(self.names), 2))  # sum of F and number of images of each class

    def add(self, truth, found):
        """Adds an image.

        Args:
            truth: uint8 [H, W], labels.
            found: uint8 [H, W], predicted labels.

        Raises:
            ValueError: if the sizes differ, or a label is none of 0…K.
        """
        if truth.shape != found.shape:
            raise ValueError(f"the map has {found.shape} pixels, the ground truth {truth.shape}")
        known, count = truth != self.ignore, len(self.names)
        true, ours = truth[known].astype(np.int64), found[known].astype(np.int64)
        most = max(true.max(initial=0), ours.max(initial=0))
        if most >= count:
            raise ValueError(f"label {most} is not among the {count} of the scores")
        self.confusion += np.bincount(true * count + ours, minlength=count**2).reshape(count, count)
        for label in np.union1d(true, ours):
            self._boundaries[label] += boundary_f(truth == label, found == label, known), 1

    def sums(self):
        """What the figures are computed from, for `add_sums`: a tuple of two arrays."""
        return self.confusion, self._boundaries

    def add_sums(self, sums):
        """Adds the images of another `SemanticScores` from its `sums`."""
        self.confusion += np.asarray(sums[0], np.int64)
        self._boundaries += np.asarray(sums[1])

    def result(self):
        """The figures so far.

        Returns:
            dict: `mean_IoU`, `pixel_accuracy`, `mean_accuracy` and `boundary_F`, floats in 0..1, means over the classes
            with a pixel on either side (of the ground truth for the accuracy), background among them; and `per_class`,
            a dict from names to dicts of `IoU`, `accuracy` and `boundary_F`. NaN without a pixel.
        """
        hits, true, ours = np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        figures = {
            "IoU": _ratio(hits, true + ours - hits),
            "accuracy": _ratio(hits, true),
            "boundary_F": _ratio(*self._boundaries.T),
        }
        rows = [{name: float(values[label]) for name, values in figures.items()} for label in range(len(self.names))]
        return {
            "mean_IoU": _mean(figures["IoU"]),
            "pixel_accuracy": float(hits.sum() / true.sum()) if true.sum() else math.nan,
            "mean_accuracy": _mean(figures["accuracy"]),
            "boundary_F": _mean(figures["boundary_F"]),
            "per_class": dict(zip(self.names, rows, strict=True)),
        }


def semantic_scores(model, dataset, batch_size=8, limit=None, progress=False, group=None):
    """Runs a model with a label map on a data set and returns its scores.

    Args:
        model: an object with `detect_each` whose results have `semantic`, as `FCN` or `SavedModel`.
        dataset: a reader with a `data.LabelMap` named "semantic"; of another one the map is that of
            `data.SemanticMasks`.
        batch_size: images per batch of the network.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.
        group: `backend.processes.Group` whose processes share the images out, see `evaluation.collected.collect`.

    Returns:
        dict, see `SemanticScores.result`.

    Raises:
        ValueError: no image could be read, the model predicts no such map, or the classes do not match.
    """
    dataset = with_label_map(dataset)
    field = label_map(dataset)
    count = len(field.class_names) if field.class_names else model.num_classes + 1
    scores = SemanticScores(field.class_names or range(count), field.ignore)

    def part(dataset, places):
        part = SemanticScores(scores.names, scores.ignore)
        for sample, found in predictions(model, dataset, batch_size=batch_size, limit=len(places), progress=progress):
            if "semantic" not in found:
                raise ValueError("the model predicts no map named 'semantic'")
            part.add(sample["semantic"], found["semantic"])
        return part.sums()

    for sums in shared_out(group, dataset, limit, part):
        scores.add_sums(sums)
    return scores.result()


def boundary_f(mask, other, known, near=NEAR):
    """F of the boundaries of two masks, see the module; 1 if neither has a boundary, 0 if one has none.

    Args:
        mask: bool [H, W].
        other: bool [H, W].
        known: bool [H, W], the pixels that count.
        near: distance of boundary pixels that match, as a share of the diagonal of the image.
    """
    width = boundary_width(mask.shape, near)
    one, two = (inner_boundary(each, known) for each in (mask, other))
    counts = np.count_nonzero(one), np.count_nonzero(two)
    if not all(counts):
        return float(not any(counts))
    recall = np.count_nonzero(one & dilated(two, width)) / counts[0]
    precision = np.count_nonzero(two & dilated(one, width)) / counts[1]
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _ratio(part, whole):
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values):
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
