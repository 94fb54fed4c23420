"""Precision and recall of small, medium and large objects."""

import numpy as np
from pycocotools import mask as mask_tools

from keras_maskrcnn.evaluation.matching import match_own_class

SIZES = ("small", "medium", "large")
LIMITS = (32**2, 96**2)  # areas in px of COCO


def size_scores(found, scores, kind=None, iou=0.5, score_threshold=0.5):
    """Scores by the size of objects: under 32² px, to 96² px, and above.

    Args:
        found: `Collected`.
        scores: figures of `score_detections` for these detections.
        kind: "segm" or "bbox"; None takes masks if there are any.
        iou: minimum intersection over union of a match, 0..1.
        score_threshold: detections that score higher than this are counted.

    Returns:
        dict from "small", "medium" and "large" to {"objects", "recall", "detections", "precision", "AP", "AR"}. Objects
        have the area of the ground truth; detections that of their mask or box, so that a detection can be of another
        size than its object. AP and AR are COCO's, over all scores. NaN where there is nothing to divide by.
    """
    kind = found.checked_kind(kind)
    objects, recalled, detections, right = np.zeros((4, len(SIZES)), np.int64)
    for image in (image.above(score_threshold) for image in found.images(kind)):
        partner, ignored = match_own_class(image, iou)
        true, sizes = _sizes(row["area"] for row in image.objects), _sizes(_area(row, kind) for row in image.detections)
        matched = np.isin(np.arange(len(true)), partner)
        for counts, chosen in (
            (objects, true[~image.crowd]),
            (recalled, true[matched]),
            (detections, sizes[~ignored]),
            (right, sizes[partner >= 0]),
        ):
            np.add.at(counts, chosen, 1)
    return {
        size: {
            "objects": int(objects[index]),
            "recall": _ratio(recalled[index], objects[index]),
            "detections": int(detections[index]),
            "precision": _ratio(right[index], detections[index]),
            "AP": scores[f"{kind}_AP{size[0]}"],
            "AR": scores[f"{kind}_AR{size[0]}"],
        }
        for index, size in enumerate(SIZES)
    }


def _sizes(areas):
    return np.digitize(np.array(list(areas), np.float64), LIMITS)


def _area(row, kind):
    return row["bbox"][2] * row["bbox"][3] if kind == "bbox" else mask_tools.area(row["segmentation"])


def _ratio(part, whole):
    return float(part / whole) if whole else float("nan")
