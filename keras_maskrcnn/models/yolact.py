"""YOLACT (Bolya et al. 2019): image → pyramid → anchors and prototypes → masks in one stage, without regions."""

import os
from collections.abc import Sequence

import keras
from keras import ops

from keras_maskrcnn import backbones
from keras_maskrcnn.backend.branches import branches
from keras_maskrcnn.heads.anchor_head import AnchorHead
from keras_maskrcnn.heads.prototypes import PrototypeHead, PrototypeStage
from keras_maskrcnn.heads.semantic_loss import SemanticLossHead
from keras_maskrcnn.layers.fpn import FPN
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.models.freezing import freeze, frozen_names
from keras_maskrcnn.options import Options

LEVELS = ("C3", "C4", "C5")
FURTHER = 2  # levels that are convolved from P5
# Options where a group of the model's does not name them: anchors of 24 pixels on P3, at the centres of its cells.
ANCHORS = {
    "sizes": ((24,), (48,), (96,), (192,), (384,)),
    "ratios": (1.0, 2.0, 0.5),
    "offset": 0.5,
    "spacing": "cells",
}
DETECTION = {"nms": "fast", "per_class": 200}


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class YOLACT(InstanceModel):
    """One-stage instance segmentation: every anchor has a class, a box and the weights of prototypes of its mask.

    Args:
        num_classes: classes K without background.
        backbone: as for `MaskRCNN`; it must have the levels C3, C4 and C5.
        stage: `heads.anchor_head.AnchorStage` or a dict of its fields, as all groups below.
        anchors: `heads.anchors.Anchors`; a dict is merged into `ANCHORS`. Sizes are in pixels of the canvas: those of
            the paper are made for 550 × 550, and the original multiplies them by 700 / 550 for 700 × 700.
        matching: `heads.anchor_head.AnchorMatching`.
        prototypes: `heads.prototypes.PrototypeStage`.
        semantic_weight: factor of the semantic loss, which exists in training only; None for a model without it.
        fpn_channels: width of the pyramid.
        fpn_norm: normalisation in the pyramid, None or a kind of `layers.norm.norm`.
        frozen: names of the frozen layers, see `MaskRCNN`.
        seed: seed of the choice of the anchors that masks are trained on; None draws one.
        weights: initial weights of the backbone, see `MaskRCNN`.
        name: name of the model.
        **common: as for `MaskRCNN`, see `InstanceModel`. A dict of `detection` is merged into `DETECTION`: Fast NMS
            with at most 200 boxes of a class.

    Raises:
        ValueError: in one line, for `num_classes` below 1, unknown names, or options that do not fit together.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str | dict | keras.Model = "resnet50",
        *,
        stage: Options | dict | None = None,
        anchors: Options | dict | None = None,
        matching: Options | dict | None = None,
        prototypes: Options | dict | None = None,
        semantic_weight: float | None = 1.0,
        fpn_channels: int = 256,
        fpn_norm: str | None = None,
        frozen: Sequence[str] | None = None,
        seed: int | None = None,
        weights: str | os.PathLike | None = None,
        name: str = "yolact",
        detection: Options | dict | None = None,
        **common,
    ):
        super().__init__(num_classes, name=name, detection=_with(DETECTION, detection), **common)
        policy = {"dtype": self.layer_dtype}
        self.backbone = backbones.get(backbone, self.layer_dtype, weights, self.image_type.channels)
        self.fpn_channels, self.fpn_norm = fpn_channels, fpn_norm
        self.semantic_weight, self.seed = semantic_weight, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        levels = _levels(self.backbone)
        self.fpn = FPN(fpn_channels, False, fpn_norm, FURTHER, "bilinear", relu=True, name="fpn", **policy)
        self.fpn.build({level: tensor.shape for level, tensor in levels.items()})
        self.strides = tuple(2 ** int(level[1:]) for level in self.fpn.compute_output_spec(levels))
        prototype_stage = PrototypeStage.of(prototypes)
        options = (prototype_stage.count, stage, _with(ANCHORS, anchors), matching, self.detection)
        self.anchor_head = AnchorHead(self.num_classes, self.strides, *options, name="anchor_head", **policy)
        self.prototype_head = PrototypeHead(prototype_stage, name="prototype_head", **policy)
        self.pixel_head = None
        if semantic_weight is not None:
            self.pixel_head = SemanticLossHead(self.num_classes, semantic_weight, name="pixel_head", **policy)
        for head in self.all_heads().values():
            head.build((None, None, None, fpn_channels))
        self.declare(self, *self.all_heads().values())
        if frozen is not None:
            freeze(self, frozen)
        self.built = True

    def call(self, inputs, training=False):
        """Losses if there is ground truth among the inputs, detections otherwise.

        Args:
            inputs: as for `MaskRCNN.call`, without proposals. `masks` are uint8 `[B, N, M, M]` inside the boxes, or
                `[B, N, H, W]` of the canvas.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            dict of scalars (`loss_names` and `health_names`); or dict of `boxes` float32 `[B, D, 4]` in canvas pixels,
            `labels` int32 `[B, D]`, `scores` float32 `[B, D]`, `valid` bool `[B, D]` and `masks` float32
            `[B, D, h, w]`, probabilities in the cells of the whole canvas, about a quarter of its resolution.
        """
        images, sizes = inputs["images"], ops.cast(inputs["sizes"], "float32")
        truth, canvas = self.ground_truth(inputs), ops.shape(images)[1:3]
        pyramid = list(self.features(images, sizes, training).values())
        learn = truth is not None and self.pixel_head is not None and not self.left_out(*self.pixel_head.LOSSES)
        finest = branches(pyramid[0], 3 if learn else 2)
        predicted = self.anchor_head([finest[0], *pyramid[1:]])
        anchors = self.anchor_head.boxes(canvas, pyramid)
        prototypes = self.prototype_head(finest[1])
        if truth is None:
            found, coefficients = self.anchor_head.detect(predicted, anchors, sizes, self.limits(inputs))
            return {**found, **self.prototype_head.predict(prototypes, coefficients, found, canvas)}
        assigned = self.anchor_head.assign(anchors, truth)
        losses = dict.fromkeys((*self.loss_names, *self.health_names), ops.zeros(()))
        if not self.left_out(*self.anchor_head.LOSSES):
            losses |= self.anchor_head.losses(predicted, assigned, truth, self.class_factors)
        if not self.left_out(*self.prototype_head.LOSSES):
            losses |= self.prototype_head.losses(
                prototypes, predicted.coefficients, assigned, truth, canvas, self.seed_generator
            )
        if learn:
            losses |= self.pixel_head.losses(self.pixel_head(finest[2]), truth, canvas)
        return losses

    def features(self, images, sizes, training=False):
        """Pixels to the pyramid: dict of `[B, H_l, W_l, C]`, P3 to P7."""
        levels = self.backbone(self.normalise(images, sizes), training=training)
        return self.fpn({level: levels[level] for level in LEVELS}, training=training)

    def all_heads(self):
        """Heads by name, in the order in which `call` runs them."""
        heads = (self.anchor_head, self.prototype_head, *([self.pixel_head] if self.pixel_head else []))
        return {head.name: head for head in heads}

    def parts(self):
        """Parts that hold weights by name, in the order in which `call` runs them."""
        return {"backbone": self.backbone, "fpn": self.fpn, **self.all_heads()}

    def canvas_stride(self):
        """Pixels of which the sides of a canvas are multiples: 1, a canvas may have any size."""
        return 1

    def get_config(self):
        """Constructor arguments."""
        groups = {
            "stage": self.anchor_head.stage,
            "anchors": self.anchor_head.anchors,
            "matching": self.anchor_head.matching,
            "prototypes": self.prototype_head.stage,
        }
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            **{name: group.asdict() for name, group in groups.items()},
            "semantic_weight": self.semantic_weight,
            "fpn_channels": self.fpn_channels,
            "fpn_norm": self.fpn_norm,
            "frozen": frozen_names(self),
            "seed": self.seed,
            "weights": None,
        }


def _with(usual, given):
    """A group of options with the usual ones that a dict does not name."""
    return {**usual, **(given or {})} if isinstance(given, dict | None) else given


def _levels(backbone):
    """Symbolic outputs of the backbone that the pyramid takes."""
    missing = [level for level in LEVELS if level not in backbone.output]
    if missing:
        raise ValueError(f"YOLACT needs the levels {', '.join(LEVELS)}: {backbone.name} has no {', '.join(missing)}")
    return {level: backbone.output[level] for level in LEVELS}
