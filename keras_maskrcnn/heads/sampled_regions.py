"""Regions that train the second stage: proposals, their assignment to ground truth, and a sample of them."""

import dataclasses
import typing

from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.ground_truth import Sampling, instances
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.ops.matching import POSITIVE, match
from keras_maskrcnn.ops.sampling import count_positive_slots, sample


@dataclasses.dataclass(frozen=True)
class RegionSampling(Sampling):
    """Regions that train the second stage: more than anchors, fewer positives, none ignored (Fast R-CNN, section 2.3).

    Attributes:
        keep_best: whether each object's best regions are positive at any IoU, as anchors are in the RPN.
        add_ground_truth: whether ground-truth boxes are among the candidates, so that there are positives from the
            first step. They are the best candidates of their objects, so that `keep_best` then has no effect.
    """

    size: int = 512
    positive_fraction: float = 0.25
    high: float = 0.5
    low: float = 0.5
    keep_best: bool = False
    add_ground_truth: bool = True


class SampledRegions(typing.NamedTuple):
    """Regions that train the second stage; positives occupy the first `positive_slots` columns.

    Attributes:
        boxes: float32 `[B, S, 4]`.
        label: int32 `[B, S]`, 0 is background.
        matched: int32 `[B, S]`, row of the ground truth.
        positive: bool `[B, S]`.
        valid: bool `[B, S]`.
        positive_slots: int.
        crops: `[B, S, P, P, C]`, what the trunk of the heads gave for the regions, for heads of the same `pool`; None
            without a trunk.
    """

    boxes: typing.Any
    label: typing.Any
    matched: typing.Any
    positive: typing.Any
    valid: typing.Any
    positive_slots: int
    crops: typing.Any = None


def sample_regions(proposed, truth, sampling, seed):
    """Choose the proposals that train the second stage.

    Args:
        proposed: `rpn.Proposed`.
        truth: dict of ground truth.
        sampling: `RegionSampling`.
        seed: `keras.random.SeedGenerator`.

    Returns:
        `SampledRegions`.
    """
    boxes, usable = proposed
    if sampling.add_ground_truth:
        boxes = ops.concatenate([truth["boxes"], boxes], axis=1)
        usable = ops.concatenate([instances(truth), usable], axis=1)
    matched, role = match(
        boxes,
        truth["boxes"],
        truth["valid"],
        truth["crowd"],
        keep_best=sampling.keep_best,
        usable=usable,
        **sampling.matching(),
    )
    index, valid = sample(role, sampling.size, sampling.positive_fraction, seed, replicas.uniform)
    positive = ops.logical_and(take_rows(role, index) == POSITIVE, valid)
    matched = take_rows(matched, index)
    label = ops.where(positive, take_rows(truth["labels"], matched), 0)
    slots = count_positive_slots(sampling.size, sampling.positive_fraction, index.shape[1])
    boxes = ops.stop_gradient(ops.where(valid[..., None], take_rows(boxes, index), 0.0))
    return SampledRegions(boxes, label, matched, positive, valid, slots)


def count_regions(regions):
    """Numbers of positive and of other valid `SampledRegions` per image: two scalars."""
    images = ops.cast(ops.shape(regions.boxes)[0], "float32")
    positive, count = (ops.sum(ops.cast(mask, "float32")) for mask in (regions.positive, regions.valid))
    return positive / images, (count - positive) / images
