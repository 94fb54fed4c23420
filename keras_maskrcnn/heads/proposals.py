"""Proposals: the highest-scored boxes of the RPN, for the second stage (Faster R-CNN, section 3.1)."""

import dataclasses
import math
import typing

from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.backend import replicas
from keras_maskrcnn.backend.nms import nms_by_level
from keras_maskrcnn.heads.ground_truth import instances
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.options import Options


@dataclasses.dataclass(frozen=True)
class Proposals(Options):
    """Number and choice of the proposals.

    Attributes:
        pre_nms: highest-scored boxes per level that enter NMS.
        post_nms: proposals per image.
        nms_iou: overlap above which the lower-scored one of two boxes is removed.
        min_size: minimum side in pixels.
        training_pre_nms: `pre_nms` in training; None takes the same number.
        training_post_nms: `post_nms` in training; None takes the same number.
    """

    RANGES: typing.ClassVar = {
        "pre_nms": (1, math.inf),
        "post_nms": (1, math.inf),
        "nms_iou": (0, 1),
        "min_size": (0, math.inf),
        "training_pre_nms": (1, math.inf),
        "training_post_nms": (1, math.inf),
    }

    pre_nms: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7
    min_size: float = 1e-3
    training_pre_nms: int | None = None
    training_post_nms: int | None = None

    def limits(self, training):
        """Arguments of `select_proposals`."""
        return {
            "pre_nms": (training and self.training_pre_nms) or self.pre_nms,
            "post_nms": (training and self.training_post_nms) or self.post_nms,
            "nms_iou": self.nms_iou,
            "min_size": self.min_size,
        }


class Proposed(typing.NamedTuple):
    """Proposals of a batch.

    Attributes:
        boxes: float32 `[B, P, 4]`, highest score first.
        valid: bool `[B, P]`, False in empty slots, whose boxes are 0.
    """

    boxes: typing.Any
    valid: typing.Any


def select_proposals(logits, deltas, anchors, sizes, pre_nms, post_nms, nms_iou, min_size):
    """The highest-scored boxes: the best of each level, decoded, clipped, reduced by NMS within the level.

    Args:
        logits: list (levels) of float32 `[B, A_l]`.
        deltas: list of float32 `[B, A_l, 4]`.
        anchors: list of float32 `[A_l, 4]`.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.
        pre_nms: candidates per level that enter NMS.
        post_nms: proposals per image.
        nms_iou: overlap above which the lower-scored box is removed.
        min_size: both sides of a box must be this many pixels or more.

    Returns:
        (boxes, scores, valid): float32 `[B, P, 4]`, highest score first; float32 `[B, P]`, objectness logits; bool
        `[B, P]`, False for empty slots, where the others are 0.
    """
    best = [_best_of_level(*level, pre_nms) for level in zip(logits, deltas, anchors, strict=True)]
    scores = ops.concatenate([score for score, _ in best], axis=1)
    boxes = box_ops.clip(ops.concatenate([box for _, box in best], axis=1), sizes)
    keep, valid = nms_by_level(
        boxes,
        [score for score, _ in best],
        nms_iou,
        min(post_nms, scores.shape[1] or post_nms),
        valid=box_ops.larger_than(boxes, min_size),
    )
    boxes = ops.where(valid[..., None], take_rows(boxes, keep), 0.0)
    return boxes, ops.where(valid, take_rows(scores, keep), 0.0), valid


def _best_of_level(logits, deltas, anchors, limit):
    known, count = logits.shape[1], ops.shape(logits)[1]
    if known is None and backend.static_shapes():
        scores, index = _padded_top_k(logits, limit)
    else:
        scores, index = ops.top_k(logits, min(limit, known) if known else ops.minimum(limit, count))
    return scores, box_ops.decode(take_rows(deltas, index), ops.take(ops.convert_to_tensor(anchors), index, axis=0))


def _padded_top_k(logits, limit):
    """The highest of an unknown number of logits as a known number of columns; those without one have -inf."""
    scores, index = ops.top_k(ops.pad(logits, [[0, 0], [0, limit]], constant_values=float("-inf")), limit)
    return scores, ops.minimum(index, ops.shape(logits)[1] - 1)


def proposal_recall(proposed, truth, iou=0.5):
    """Share of the objects that some proposal overlaps by `iou` or more; 1 if there is no object."""
    instance = instances(truth)
    overlap = ops.where(proposed.valid[:, None, :], box_ops.iou(truth["boxes"], proposed.boxes), 0.0)
    found = ops.cast(ops.max(overlap, axis=2) >= iou, "float32")
    count = ops.sum(ops.cast(instance, "float32"))
    return ops.where(replicas.total(count) > 0, replicas.global_mean(found, instance, count), 1.0)
