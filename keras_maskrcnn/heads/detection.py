"""The last step of every detector: thresholds, and the choice of a fixed number of boxes among scored candidates."""

import dataclasses
import math
import numbers
import typing

from keras import ops

from keras_maskrcnn.backend.nms import nms
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import rows
from keras_maskrcnn.options import Options, check_choice

# What every detector predicts. A row that holds no object has 0 everywhere, and False in "valid".
OUTPUTS = (
    Output("boxes", "boxes", exported="detection_boxes"),
    Output("labels", exported="detection_classes"),
    Output("scores", exported="detection_scores", caption="{:.2f}"),
)
# Minimum scores: where all detections count (`predict`, evaluation, export), and where a user reads them (`detect`).
ALL, SHOWN = 0.05, 0.5


class Limits(typing.NamedTuple):
    """Thresholds of one call: numbers, or scalar tensors where one graph serves all thresholds.

    Attributes:
        score_threshold: detections score higher than this.
        nms_iou: overlap above which the lower-scored one of two boxes of a class is removed.
        max_detections: maximum number of detections per image.
    """

    score_threshold: float
    nms_iou: float
    max_detections: int


@dataclasses.dataclass(frozen=True)
class Detection(Options):
    """Which boxes are detections. `detect`, `coco_scores` and others override the first three per call.

    Attributes:
        score_threshold: detections score higher than this, in [0, 1]. None takes 0.5 in `detect`, which returns what a
            user reads, and 0.05 elsewhere (`predict`, export), where figures are computed from all detections.
        nms_iou: overlap in [0, 1] above which the lower-scored one of two boxes of a class is removed.
        max_detections: maximum number of detections per image, at least 1.
        candidates: maximum number of (region, class) pairs that enter NMS.
        min_size: minimum side of a box in pixels of the network's input.
        paste: how masks are pasted into the image: "continuous", sampled at the exact position of each pixel
            (detectron2), or "whole_pixels", enlarged to the box rounded outwards to whole pixels (torchvision).

    Raises:
        ValueError: for a value outside its range.
    """

    score_threshold: float | None = None
    nms_iou: float = 0.5
    max_detections: int = 100
    candidates: int = 1000
    min_size: float = 1e-2
    paste: str = "continuous"

    def __post_init__(self):
        super().__post_init__()
        check_choice("paste", self.paste, ("continuous", "whole_pixels"))
        self.limits()

    def limits(self, score_threshold=None, nms_iou=None, max_detections=None, default_score=ALL):
        """The thresholds of a call: its own arguments; where they are None, the options.

        Args:
            score_threshold: float in [0, 1], or None.
            nms_iou: float in [0, 1], or None.
            max_detections: int of at least 1, or None.
            default_score: the score threshold where both the argument and the option are None.

        Returns:
            `Limits` of Python numbers.

        Raises:
            ValueError: naming the argument, for a value that is no number or outside its range.
        """
        given = (score_threshold, self.score_threshold, default_score)
        return Limits(
            _share("score_threshold", next(value for value in given if value is not None)),
            _share("nms_iou", self.nms_iou if nms_iou is None else nms_iou),
            _count("max_detections", self.max_detections if max_detections is None else max_detections),
        )


def _share(name, value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 <= value <= 1 or math.isnan(value):
        raise ValueError(f"{name}={value!r} must be a number from 0 to 1")
    return float(value)


def _count(name, value):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
    return int(value)


def select_detections(probabilities, boxes, valid, sizes, limits, candidates=1000, min_size=1e-2):
    """The final boxes: every class of every region is a candidate, reduced by NMS within its class.

    Args:
        probabilities: float32 `[B, P, K + 1]`, class probabilities with background first.
        boxes: float32 `[B, P, K + 1, 4]`, one per class; or `[B, P, 1, 4]`, one for all classes.
        valid: bool `[B, P]`, False for empty slots.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.
        limits: `Limits`.
        candidates: maximum number of (region, class) pairs that enter NMS.
        min_size: both sides of a box must be this many pixels or more.

    Returns:
        dict of `boxes` float32 `[B, D, 4]`, `scores` float32 `[B, D]` in descending order, `labels` int32 `[B, D]` of
        1…K, `valid` bool `[B, D]` and `region` int32 `[B, D]` in 0…P-1, the region that each box comes from; empty
        slots hold 0.
    """
    regions = probabilities.shape[1] or ops.shape(probabilities)[1]
    classes = probabilities.shape[2] - 1
    scores = ops.where(valid[..., None], probabilities[..., 1:], 0.0)
    limit = _at_most(candidates, regions * classes)
    scores, pair = ops.top_k(ops.reshape(scores, (-1, regions * classes)), limit)
    pair = ops.cast(pair, "int32")
    region, label = pair // classes, pair % classes + 1
    per_region = boxes.shape[2]
    place = region * per_region + label if per_region > 1 else region
    boxes = box_ops.clip(rows(ops.reshape(boxes, (-1, regions * per_region, 4)), place), sizes)
    usable = ops.logical_and(scores > limits.score_threshold, box_ops.larger_than(boxes, min_size))
    keep, kept = nms(boxes, scores, limits.nms_iou, _at_most(limits.max_detections, limit), groups=label, valid=usable)
    return {
        "boxes": ops.where(kept[..., None], rows(boxes, keep), 0.0),
        "scores": ops.where(kept, rows(scores, keep), 0.0),
        "labels": ops.where(kept, rows(label, keep), 0),
        "valid": kept,
        "region": ops.where(kept, rows(region, keep), 0),
    }


def _at_most(count, limit):
    """The smaller number; a tensor if one of them is known at run time only."""
    return min(count, limit) if isinstance(count, int) and isinstance(limit, int) else ops.minimum(count, limit)
