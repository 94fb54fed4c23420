"""Panoptic quality, PQ (Kirillov et al. 2019, "Panoptic Segmentation", equation 1 and section 4).

Per class, over all images: a predicted and a true segment of one class match if their IoU exceeds 0.5, which at most
one pair per segment does. With the matches TP, the other predicted segments FP and the other true ones FN,

    PQ = Σ IoU of TP / (|TP| + |FP| / 2 + |FN| / 2) = SQ · RQ,    SQ = Σ IoU of TP / |TP|.

Pixels without a true segment are left out of the IoU, and so is a predicted segment that lies on them, or on crowds of
its class, by more than half. Crowds are no true segments. Means are taken over the classes with a segment on any side.
"""

import collections

import numpy as np

from keras_maskrcnn.evaluation.predictions import predictions
from keras_maskrcnn.inference.panoptic import VOID, panoptic, panoptic_truth

MATCHED = 0.5


class PanopticQuality:
    """Sums of PQ over images.

    Args:
        class_names: names of the things.
        stuff_names: names of the stuff without that of label 0. Labels beyond the names are named by their numbers.
    """

    def __init__(self, class_names, stuff_names):
        kinds = ((True, class_names), (False, stuff_names))
        self._names = {(thing, label): name for thing, names in kinds for label, name in enumerate(names, 1)}
        # For each class: sum of the IoU of the matches, their number, and the numbers of the other segments.
        self._sums = collections.defaultdict(lambda: np.zeros(4))

    def add(self, truth, found):
        """Adds an image.

        Args:
            truth: `inference.panoptic.Panoptic` of the ground truth.
            found: `Panoptic` of the same size.

        Raises:
            ValueError: if the sizes differ.
        """
        if truth.ids.shape != found.ids.shape:
            raise ValueError(f"the map has {found.ids.shape} pixels, the ground truth {truth.ids.shape}")
        common = _common(truth.ids, found.ids)
        matched, true_segments, our_segments = set(), _by_id(truth), _by_id(found)
        for (true, ours), pixels in common.items():
            one, other = true_segments.get(true), our_segments.get(ours)
            if one is None or other is None or one.crowd or _class(one) != _class(other):
                continue
            iou = pixels / (one.area + other.area - pixels - common.get((VOID, ours), 0))
            if iou > MATCHED:
                self._sums[_class(one)] += iou, 1, 0, 0
                matched |= {(0, true), (1, ours)}
        for segment in truth.segments:
            if not segment.crowd and (0, segment.id) not in matched:
                self._sums[_class(segment)] += 0, 0, 0, 1
        for segment in found.segments:
            if (1, segment.id) not in matched and not self._ignored(segment, truth, common):
                self._sums[_class(segment)] += 0, 0, 1, 0

    def _ignored(self, segment, truth, common):
        crowds = [other.id for other in truth.segments if other.crowd and _class(other) == _class(segment)]
        return sum(common.get((number, segment.id), 0) for number in (VOID, *crowds)) > MATCHED * segment.area

    def result(self):
        """The figures so far.

        Returns:
            dict: `PQ`, `SQ` and `RQ` over all classes, the same with `_things` and `_stuff`, floats in 0..1, NaN
            without a segment; and `per_class`, a dict from names to dicts of `PQ`, `SQ`, `RQ`, `TP`, `FP` and `FN`.
        """
        counted = {place: _figures(sums) for place, sums in self._sums.items() if sums[1:].any()}
        result = {}
        for ending, kinds in (("", (True, False)), ("_things", (True,)), ("_stuff", (False,))):
            chosen = [figures for (thing, _), figures in counted.items() if thing in kinds]
            for name in ("PQ", "SQ", "RQ"):
                result[name + ending] = float(np.mean([row[name] for row in chosen])) if chosen else float("nan")
        names = {place: self._names.get(place, place[1]) for place in sorted(counted, key=lambda p: (not p[0], p[1]))}
        return {**result, "per_class": {name: counted[place] for place, name in names.items()}}


def panoptic_quality(
    model, dataset, score_threshold=0.5, overlap=0.5, stuff_area=4096, batch_size=8, limit=None, progress=False
):
    """PQ of a model with a semantic head on a data set with a `data.LabelMap` named "semantic".

    Args:
        model: an object with `detect_each`, as `MaskRCNN` or `SavedModel`.
        dataset: a reader such as `data.CocoPanoptic` or `data.Scenes`.
        score_threshold: as for `inference.panoptic.panoptic`.
        overlap: as for `inference.panoptic.panoptic`.
        stuff_area: as for `inference.panoptic.panoptic`.
        batch_size: images per batch of the network.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.

    Returns:
        dict, see `PanopticQuality.result`.

    Raises:
        ValueError: the data set has no such map, no image could be read, or the classes do not match.
    """
    field = next((field for field in dataset.fields if field.name == "semantic"), None)
    if field is None:
        raise ValueError("panoptic quality needs the field 'semantic', a data.LabelMap, which the data set lacks")
    quality = PanopticQuality(dataset.class_names, (field.class_names or ())[1:])
    options = {"batch_size": batch_size, "limit": limit, "progress": progress}
    for sample, found in predictions(model, dataset, score_threshold, **options):
        quality.add(panoptic_truth(sample), panoptic(found, score_threshold, overlap, stuff_area))
    return quality.result()


def _class(segment):
    return segment.thing, segment.label


def _by_id(side):
    return {segment.id: segment for segment in side.segments}


def _common(truth, found):
    """Numbers of common pixels: a dict from pairs of a true and a predicted id."""
    width = int(found.max(initial=0)) + 1
    numbers, counts = np.unique(truth.astype(np.int64) * width + found, return_counts=True)
    return {divmod(number, width): count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}


def _figures(sums):
    total, hits, false, missed = sums.tolist()
    quality, found = total / max(hits, 1), hits / (hits + false / 2 + missed / 2)
    counts = {"TP": int(hits), "FP": int(false), "FN": int(missed)}
    return {"PQ": quality * found, "SQ": quality, "RQ": found, **counts}
