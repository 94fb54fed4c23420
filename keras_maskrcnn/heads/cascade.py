"""Second stage as a cascade: box stages that refine each other's boxes (Cascade R-CNN, Cai and Vasconcelos 2018)."""

import dataclasses
import math
import numbers

import keras
from keras import ops

from keras_maskrcnn.backend.branches import branches
from keras_maskrcnn.heads.box import BoxHead, BoxStage, detections, detectron2_rows
from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.region_head import RegionHead
from keras_maskrcnn.heads.sampled_regions import RegionSampling, SampledRegions, count_regions, sample_regions
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.ops.matching import IGNORED, POSITIVE, match
from keras_maskrcnn.options import Options

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cascade(Options):
    """The stages, one entry each. The defaults are the paper's (section 4.3) with the loss weights of detectron2.

    Attributes:
        ious: minimum IoU of a positive region.
        delta_weights: factors of the regression targets: a more exact box has smaller deltas.
        loss_weights: factors of both losses of a stage.

    Raises:
        ValueError: if there is no stage, the numbers of entries differ, or a value is outside its range.
    """

    ious: tuple = (0.5, 0.6, 0.7)
    delta_weights: tuple = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
    loss_weights: tuple = (1.0, 1.0, 1.0)

    def __post_init__(self):
        super().__post_init__()
        for name in ("ious", "delta_weights", "loss_weights"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values:
                raise ValueError(f"cascade {name}={values!r} must be a list with an entry for each stage")
            if len(values) != len(self.ious):
                raise ValueError(f"cascade {name} has {len(values)} entries for the {len(self.ious)} stages of ious")
        _check("ious", self.ious, lambda value: 0 < value <= 1, "greater than 0 and at most 1")
        _check("loss_weights", self.loss_weights, lambda value: value >= 0, "at least 0")
        for weights in self.delta_weights:
            if not isinstance(weights, tuple) or len(weights) != 4:
                raise ValueError(f"cascade delta_weights has {weights!r}, which must be four numbers")
            _check("delta_weights", weights, lambda value: value > 0, "greater than 0")


def _check(name, values, is_possible, range_text):
    for value in values:
        if not isinstance(value, numbers.Real) or not math.isfinite(value) or not is_possible(value):
            raise ValueError(f"cascade {name} has {value!r}, which must be a number {range_text}")


# Assignment -------------------------------------------------------------------------------------------------------


def label_regions(boxes, valid, truth, iou, crowd_cover):
    """The regions of a later stage: all boxes that the previous stage refined, matched anew at a higher IoU.

    Args:
        boxes: float32 `[B, S, 4]`.
        valid: bool `[B, S]`.
        truth: dict of ground truth.
        iou: minimum IoU of a positive; all others are background.
        crowd_cover: as for `ops.matching.match`; regions that it ignores are not valid.

    Returns:
        `SampledRegions`, with positives in any of the S columns.
    """
    matched, role = match(
        boxes,
        truth["boxes"],
        truth["valid"],
        truth["crowd"],
        high=iou,
        low=iou,
        crowd_cover=crowd_cover,
        usable=valid,
    )
    positive = role == POSITIVE
    label = ops.where(positive, take_rows(truth["labels"], matched), 0)
    return SampledRegions(boxes, label, matched, positive, role != IGNORED, boxes.shape[1])


def scaled_gradient(values, factor):
    """The values, float `[...]`, with a gradient that is multiplied by `factor`."""
    if factor == 1:
        return values
    constant = ops.stop_gradient(values)
    return constant + factor * (values - constant)


# Layer ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class CascadeHead(RegionHead):
    """Box stages with layers of their own, each of which classifies and refines the boxes of the previous stage.

    The first stage is trained on sampled proposals, the others on the boxes that the stage before refined, clipped to
    the image and without a gradient. These are not sampled again: their overlaps with objects have grown, so that there
    are enough positives at the higher IoU. Detections have the boxes of the last stage and the mean of the class
    probabilities of all stages.

    The deltas are class-agnostic. The losses of the stages are added; in exchange the gradient that each of them sends
    to the features is divided by the number of stages, as in detectron2 (`cascade_rcnn.py`). Mask and further heads are
    trained on the regions of the first stage, as there.

    Args:
        num_classes: classes without background.
        cascade: `Cascade`, or a dict of its fields, as the groups below.
        stage: `BoxStage`, the layers of each stage, whose boxes are class-agnostic in any case. Its `delta_weights`
            must be those of the first stage of `cascade`.
        sampling: `RegionSampling` of the first stage. Its `high` must be the IoU of the first stage of `cascade`.
        detection: `Detection`.

    Raises:
        ValueError: in one line, for options that do not fit together.
    """

    OUTPUTS = BoxHead.OUTPUTS

    def __init__(self, num_classes, cascade=None, stage=None, sampling=None, detection=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.cascade = Cascade.of(cascade)
        self.stage = BoxStage.of(stage)
        self.sampling = RegionSampling.of(sampling)
        self.detection = Detection.of(detection)
        self.pool = self.stage.pool
        _check_first(self.cascade, self.stage, self.sampling)
        self.stages = [
            BoxHead(num_classes, self._stage(weights), name=f"stage{number}", dtype=self.dtype_policy)
            for number, weights in enumerate(self.cascade.delta_weights, start=1)
        ]
        self.LOSSES = tuple(_numbered(name, i) for i in range(len(self.stages)) for name in BoxHead.LOSSES)
        self.HEALTH = (*BoxHead.HEALTH, *(_numbered("foreground", i) for i in range(1, len(self.stages))))

    def _stage(self, delta_weights):
        return dataclasses.replace(self.stage, delta_weights=delta_weights, class_agnostic=True)

    def build(self, input_shape):
        """Create the layers of all stages for crops of `input_shape` (N, P, P, C)."""
        for stage in self.stages:
            stage.build(input_shape)

    def classify(self, levels, boxes, training=False, valid=None, number=0):
        """Class logits `[B, R, K + 1]` and deltas `[B, R, 1, 4]` of boxes `[B, R, 4]` by stage `number`, from 0.

        Batch statistics are computed from the boxes that are `valid`, bool `[B, R]`; None for all.
        """
        return self.stages[number].classify_crops(self.crops(levels, boxes, training, valid), training, valid)

    def refine(self, boxes, deltas, number, sizes=None):
        """Boxes `[B, R, 4]`, refined by the deltas `[B, R, 1, 4]` of stage `number` and clipped to the images."""
        refined = box_ops.decode(ops.stop_gradient(deltas[:, :, 0]), boxes, self.cascade.delta_weights[number])
        return refined if sizes is None else box_ops.clip(refined, sizes)

    def losses(self, levels, proposed, truth, seed, training=False, class_weights=None, sizes=None):
        """Sample regions and compute the losses of all stages, each divided by the number of its regions.

        Args:
            levels: list of `[B, H, W, C]`, the levels that regions are sampled from.
            proposed: `rpn.Proposed`.
            truth: dict of ground truth.
            seed: `keras.random.SeedGenerator` of the sampler.
            training: whether batch normalisation uses the batch's statistics.
            class_weights: as for `BoxHead.region_losses`.
            sizes: float32 `[B, 2]`, height and width of each image inside the input; None does not clip refined boxes.

        Returns:
            (`SampledRegions` of the first stage, dict of the scalars in `LOSSES` and `HEALTH`).
        """
        copies = [branches(level, len(self.stages)) for level in levels]
        sampled = regions = sample_regions(proposed, truth, self.sampling, seed)
        terms, deltas = {}, None
        for i, stage in enumerate(self.stages):
            if i:
                regions = self._refined(regions, deltas, truth, sizes, i)
            crops = self.crops([tensors[i] for tensors in copies], regions.boxes, training, regions.valid)
            crops = scaled_gradient(crops, 1.0 / len(self.stages))
            logits, deltas = stage.classify_crops(crops, training, regions.valid)
            losses = stage.region_losses(logits, deltas, regions, truth, class_weights)
            weight = self.cascade.loss_weights[i]
            terms.update({_numbered(name, i): weight * loss for name, loss in losses.items()})
            foreground, background = count_regions(regions)
            terms.update({_numbered("foreground", i): foreground, **({} if i else {"background": background})})
        return sampled, terms

    def _refined(self, regions, deltas, truth, sizes, number):
        """`SampledRegions` of stage `number`: the regions of the stage before, refined; empty boxes are not valid."""
        boxes = self.refine(regions.boxes, deltas, number - 1, sizes)
        valid = ops.logical_and(regions.valid, box_ops.larger_than(boxes, 0.0))
        return label_regions(boxes, valid, truth, self.cascade.ious[number], self.sampling.crowd_cover)

    def detect(self, levels, proposed, sizes, limits=None):
        """Detections: boxes that all stages refined, after NMS. Arguments and results are those of `BoxHead.detect`."""
        boxes, scores = proposed.boxes, []
        for i in range(len(self.stages)):
            logits, deltas = self.classify(levels, boxes, number=i)
            scores.append(ops.softmax(logits, axis=-1))
            boxes = self.refine(boxes, deltas, i, sizes)
        mean = sum(scores) / len(scores)
        return detections(mean, boxes[:, :, None], proposed, sizes, limits, self.detection)

    def per_class_layers(self):
        """Layers whose width depends on the number of classes, by names such as "stages.0.classes"."""
        return {
            f"stages.{i}.{name}": layer
            for i, stage in enumerate(self.stages)
            for name, layer in stage.per_class_layers().items()
        }

    def published(self, source, names):
        """Rows of published arrays: detectron2 numbers the stages from 0; the other sources publish no cascade."""
        if source == "detectron2":
            for i, stage in enumerate(self.stages):
                yield from detectron2_rows(stage, f"box_head.stages.{i}", f".{i}")

    def get_config(self):
        """Constructor arguments."""
        groups = ("cascade", "stage", "sampling", "detection")
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            **{group: getattr(self, group).asdict() for group in groups},
        }


def _numbered(name, stage):
    """Name of a scalar of stage `stage`, from 0: "class_loss" for the first one, "class_loss_2" for the next."""
    return f"{name}_{stage + 1}" if stage else name


def _check_first(cascade, stage, sampling):
    """Raises a ValueError if the options of a single box stage contradict the first stage."""
    pairs = (
        ("box_sampling high", sampling.high, "ious", cascade.ious[0]),
        ("box_stage delta_weights", stage.delta_weights, "delta_weights", cascade.delta_weights[0]),
    )
    for name, value, of_cascade, first in pairs:
        if value != first:
            raise ValueError(f"{name}={value!r} must be {first!r}, the first of the cascade's {of_cascade}")
