"""The last step of every detector: thresholds, and the choice of a fixed number of boxes among scored candidates."""

import dataclasses
import math
import numbers
import typing

from keras import ops

from keras_maskrcnn.backend.nms import fast_nms
from keras_maskrcnn.backend.nms import nms as exact_nms
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.options import Options, check_choice

# Outputs of every detector. An empty row has 0 everywhere, and False in "valid".
OUTPUTS = (
    Output("boxes", "boxes", exported="detection_boxes"),
    Output("labels", exported="detection_classes"),
    Output("scores", exported="detection_scores", caption="{:.2f}"),
)
# Default minimum scores: for figures over all detections (`predict`, evaluation, export), and for `detect`.
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
        score_threshold: detections score higher than this, in [0, 1]. None takes 0.5 in `detect`
            and 0.05 elsewhere (`predict`, export), where figures are computed from all detections.
        nms_iou: overlap in [0, 1] above which the lower-scored one of two boxes of a class is removed.
        max_detections: maximum number of detections per image, at least 1.
        candidates: maximum number of (region, class) pairs that enter NMS.
        min_size: minimum side of a box in pixels of the network's input.
        paste: how masks inside boxes are pasted into the image: "continuous", sampled at the exact position of each
            pixel (detectron2), or "whole_pixels", enlarged to the box rounded outwards to whole pixels (torchvision).
        nms: "exact", where a box that is suppressed suppresses no other; or "fast", where it does (YOLACT, section
            3.3): one step instead of a sequence, and slightly fewer detections.
        per_class: maximum number of boxes of a class that enter NMS, those with the highest scores; None for all.
        clip: whether boxes are clipped to the image "before_nms" (torchvision, detectron2) or "after_nms" (YOLACT).

    Raises:
        ValueError: for a value outside its range.
    """

    RANGES: typing.ClassVar = {"candidates": (1, math.inf), "min_size": (0, math.inf), "per_class": (1, math.inf)}

    score_threshold: float | None = None
    nms_iou: float = 0.5
    max_detections: int = 100
    candidates: int = 1000
    min_size: float = 1e-2
    paste: str = "continuous"
    nms: str = "exact"
    per_class: int | None = None
    clip: str = "before_nms"

    def __post_init__(self):
        super().__post_init__()
        check_choice("paste", self.paste, ("continuous", "whole_pixels"))
        check_choice("nms", self.nms, ("exact", "fast"))
        check_choice("clip", self.clip, ("before_nms", "after_nms"))
        self.limits()

    def selection(self):
        """Options as arguments of `select_detections`."""
        names = ("candidates", "min_size", "nms", "per_class", "clip")
        return {name: getattr(self, name) for name in names}

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
            check_count("max_detections", self.max_detections if max_detections is None else max_detections),
        )


def _share(name, value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 <= value <= 1 or math.isnan(value):
        raise ValueError(f"{name}={value!r} must be a number from 0 to 1")
    return float(value)


def check_count(name, value):
    """The value as an int.

    Raises:
        ValueError: if it is not a whole number from 1 to 2³¹ - 1.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
    return int(value)


def select_detections(
    probabilities,
    boxes,
    valid,
    sizes,
    limits,
    candidates=1000,
    min_size=1e-2,
    nms="exact",
    per_class=None,
    clip="before_nms",
):
    """The final boxes: every class of every region is a candidate, reduced by NMS within its class.

    Args:
        probabilities: float32 `[B, P, K + 1]`, class probabilities with background first.
        boxes: float32 `[B, P, K + 1, 4]`, one per class; or `[B, P, 1, 4]`, one for all classes.
        valid: bool `[B, P]`, False for empty slots.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.
        limits: `Limits`.
        candidates: maximum number of (region, class) pairs that enter NMS.
        min_size: both sides of a box inside the image must be this many pixels or more.
        nms: see `Detection`, as the arguments below.
        per_class: maximum number of boxes of a class that enter NMS, or None.
        clip: "before_nms" or "after_nms".

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
    whole = take_rows(ops.reshape(boxes, (-1, regions * per_region, 4)), place)
    boxes = box_ops.clip(whole, sizes)
    usable = ops.logical_and(scores > limits.score_threshold, box_ops.larger_than(boxes, min_size))
    if per_class is not None:
        usable = ops.logical_and(usable, ops.logical_not(_beyond(per_class, label, usable)))
    suppress = {"exact": exact_nms, "fast": fast_nms}[nms]
    compared = boxes if clip == "before_nms" else whole
    most = _at_most(limits.max_detections, limit)
    keep, kept = suppress(compared, scores, limits.nms_iou, most, groups=label, valid=usable)
    return {
        "boxes": ops.where(kept[..., None], take_rows(boxes, keep), 0.0),
        "scores": ops.where(kept, take_rows(scores, keep), 0.0),
        "labels": ops.where(kept, take_rows(label, keep), 0),
        "valid": kept,
        "region": ops.where(kept, take_rows(region, keep), 0),
    }


def _beyond(count, labels, usable):
    """Bool `[B, N]`: rows that at least `count` usable rows of their class precede."""
    row = ops.arange(ops.shape(labels)[1])
    earlier = ops.logical_and(labels[:, None, :] == labels[:, :, None], row[None, :] < row[:, None])
    return ops.sum(ops.cast(ops.logical_and(earlier, usable[:, None, :]), "int32"), axis=2) >= count


def _at_most(count, limit):
    """The smaller number; a tensor if one of them is known at run time only."""
    return min(count, limit) if isinstance(count, int) and isinstance(limit, int) else ops.minimum(count, limit)
