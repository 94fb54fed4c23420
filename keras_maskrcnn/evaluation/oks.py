"""Keypoint scores: object keypoint similarity (OKS) in the place of IoU, as in COCO's keypoint challenge.

The similarity of two objects is the mean of exp(-d² / (2 s² k²)) over the labelled keypoints of the ground truth: d is
the distance of the two points, s² the area of the true object, and k = 2 σ a constant of the keypoint
(https://cocodataset.org/#keypoints-eval). At most 20 detections per image count, and there is no size "small".
"""

import numpy as np
from pycocotools.cocoeval import COCOeval

KIND = "keypoints"
# name: as `coco.FIGURES`
FIGURES = {
    "AP": ("precision", None, "all", 0),
    "AP50": ("precision", 0.5, "all", 0),
    "AP75": ("precision", 0.75, "all", 0),
    "APm": ("precision", None, "medium", 0),
    "APl": ("precision", None, "large", 0),
    "AR": ("recall", None, "all", 0),
    "AR50": ("recall", 0.5, "all", 0),
    "AR75": ("recall", 0.75, "all", 0),
    "ARm": ("recall", None, "medium", 0),
    "ARl": ("recall", None, "large", 0),
}
PER_CLASS = ("AP", "AP50", "AR")
# Standard deviations of persons' annotations in COCO, relative to the square root of the area.
SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035),
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)


def default_sigmas(count):
    """σ of each keypoint: COCO's for 17 keypoints, and the mean of these (0.067) for all of another number."""
    return SIGMAS if count == len(SIGMAS) else (float(np.mean(SIGMAS)),) * count


def evaluator(truth, found, sigmas=None):
    """A `COCOeval` of keypoints.

    Args:
        truth: COCO object of the ground truth. Annotations without keypoints are ignored.
        found: COCO object of detections with `keypoints`.
        sigmas: σ of each keypoint; None for `default_sigmas`.

    Raises:
        ValueError: truth and detections have different numbers of keypoints, or the sigmas another one.
    """
    counts = {len(row[KIND]) // 3 for coco in (truth, found) for row in coco.anns.values()}
    if len(counts) > 1:
        raise ValueError(f"objects and detections have different numbers of keypoints: {sorted(counts)}")
    count = counts.pop() if counts else len(SIGMAS)
    sigmas = default_sigmas(count) if sigmas is None else tuple(sigmas)
    if len(sigmas) != count:
        raise ValueError(f"{len(sigmas)} sigmas for {count} keypoints")
    result = COCOeval(truth, found, KIND)
    result.params.kpt_oks_sigmas = np.array(sigmas)
    return result


def as_truth(annotations, detections):
    """Copies of annotations; those without keypoints get some that are not labelled, so COCOeval ignores them."""
    length = next((len(row[KIND]) for row in (*detections, *annotations) if row.get(KIND)), 3 * len(SIGMAS))
    rows = [{**annotation, KIND: annotation.get(KIND) or [0] * length} for annotation in annotations]
    return [{**row, "num_keypoints": int(np.count_nonzero(np.array(row[KIND])[2::3]))} for row in rows]


def as_annotation(found):
    """The keypoints of a detection, and the area by which COCOeval assigns its size, as `COCO.loadRes` computes it.

    It is that of the box, and without one that of the extent of the keypoints.
    """
    x, y = np.reshape(found[KIND], (-1, 3)).T[:2]
    box = found.get("bbox") or [float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))]
    return {KIND: found[KIND], "bbox": box, "area": box[2] * box[3]}
