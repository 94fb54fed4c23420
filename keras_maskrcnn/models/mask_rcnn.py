"""Mask R-CNN (He et al. 2017): image → features → proposals → regions → heads → losses or detections."""

import os
from collections.abc import Sequence

import keras
from keras import ops

from keras_maskrcnn import backbones
from keras_maskrcnn.backend.branches import branches
from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.cascade import Cascade, CascadeHead
from keras_maskrcnn.heads.map_head import MapHead
from keras_maskrcnn.heads.mask import MaskHead, MaskStage
from keras_maskrcnn.heads.proposals import Proposed
from keras_maskrcnn.heads.region_head import ObjectHead, Regions
from keras_maskrcnn.heads.rpn import RPNHead
from keras_maskrcnn.models import compatibility, necks
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.models.freezing import freeze, frozen_names
from keras_maskrcnn.models.further_heads import further_heads
from keras_maskrcnn.options import Options, check_choice

MASKS = MaskStage()


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class MaskRCNN(InstanceModel):
    """Two-stage object detection and instance segmentation. One model trains, evaluates, predicts and exports.

    Args:
        num_classes: classes K without background.
        backbone: "resnet10" … "resnet101", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "mobilenet_v2",
            "efficientnet_lite0" … "efficientnet_lite2", "darknet53", "simple_cnn"; a dict of such a name and options;
            or a Keras model with outputs {"C2": …}, see `backbones.get`.
        neck: "fpn"; "c4", whose heads share the backbone's fifth stage; "dc5", C5 with dilation instead of its stride;
            or None to use only the backbone's last level. See `models.necks`, also for the options of the groups below
            that "c4" and "dc5" change where they are not given.
        rpn_stage: `heads.rpn.RPNStage` or a dict of its fields, as all groups below.
        anchors: `heads.anchors.Anchors`.
        proposals: `heads.proposals.Proposals`.
        rpn_sampling: `heads.anchors.AnchorSampling`.
        box_stage: `heads.box.BoxStage`.
        box_sampling: `heads.sampled_regions.RegionSampling`.
        cascade: `heads.cascade.Cascade`, or {} for its defaults: box stages that refine the boxes of each other
            (Cascade R-CNN). None has one box stage.
        mask_stage: `heads.mask.MaskStage`; None for a model without a mask head, which is Faster R-CNN: it is trained,
            evaluated and exported without masks.
        heads: list of further `heads.region_head.ObjectHead`s and `heads.map_head.MapHead`s, see docs/extending.md, or
            dicts that `keras.saving.serialize_keras_object` makes of them. Their names must be unique. They keep the
            dtype policy that they were made with; a dict without one gets the model's.
        regions: `heads.region_head.Regions`: RoIAlign, RoIWarp or RoIPool, and its conventions.
        fpn_channels: width of the pyramid.
        fpn_norm: normalisation in the pyramid, None or a kind of `layers.norm.norm`.
        frozen: names of the frozen layers, such as ["backbone"] or ["backbone/stem_conv"]; all others are then
            trainable. None leaves it to the parts (`freeze_at` of a ResNet). `.keras` files keep the frozen layers.
        seed: seed of the samplers; None draws one.
        weights: initial weights of the backbone: "imagenet", the path of a classifier's file, or None for random ones,
            see `weights.imagenet`. They are read once: the configuration holds None, as a saved model has weights.
        name: name of the model.
        **common: `class_names`, `image_size`, `resize`, `detection`, `stretch`, `channels`, `image_dtype`,
            `pixel_mean`, `pixel_std`, `dtype`, see `InstanceModel`. With `image_size=None` the model takes the canvas
            of the first data that `fit` is given, and until then `resize` applies. Coordinates, losses, box decoding
            and NMS run in float32 under any dtype.

    Raises:
        ValueError: in one line, for `num_classes` below 1, unknown names, or options that do not fit together.

    Example:
        >>> import numpy as np
        >>> from keras_maskrcnn import MaskRCNN
        >>> model = MaskRCNN(3, {"name": "resnet10", "width": 8}, image_size=(64, 64))
        >>> found = model.detect(np.zeros((50, 70, 3), "uint8"))
        >>> found["masks"].shape[1:]
        (50, 70)
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str | dict | keras.Model = "resnet50",
        neck: str | None = "fpn",
        *,
        rpn_stage: Options | dict | None = None,
        anchors: Options | dict | None = None,
        proposals: Options | dict | None = None,
        rpn_sampling: Options | dict | None = None,
        box_stage: Options | dict | None = None,
        box_sampling: Options | dict | None = None,
        cascade: Options | dict | None = None,
        mask_stage: Options | dict | None = MASKS,
        heads: Sequence = (),
        regions: Options | dict | None = None,
        fpn_channels: int = 256,
        fpn_norm: str | None = None,
        frozen: Sequence[str] | None = None,
        seed: int | None = None,
        weights: str | os.PathLike | None = None,
        name: str = "mask_rcnn",
        **common,
    ):
        super().__init__(num_classes, name=name, **common)
        check_choice("neck", neck, necks.NECKS)
        backbone = necks.dilated(neck, backbone)
        self.backbone = backbones.get(backbone, self.layer_dtype, weights, self.image_type.channels)
        self.neck, self.fpn_channels, self.fpn_norm, self.seed = neck, fpn_channels, fpn_norm, seed
        self.regions = Regions.of(regions)
        self.seed_generator = keras.random.SeedGenerator(seed)
        maps = self.maps = necks.make(neck, self.backbone, fpn_channels, fpn_norm, self.layer_dtype)
        self.fpn = maps.fpn  # Keras finds layers among the attributes of the model only
        if self.image_size:
            self.check_canvas(self.image_size)
        self.strides, self.region_levels = tuple(maps.strides.values()), maps.levels(self.regions.level)
        has_masks, mask_stage = mask_stage is not None, None if mask_stage is MASKS else mask_stage
        anchors, proposals, box_stage, box_sampling, mask_stage = necks.with_usual(
            neck,
            anchors=anchors,
            proposals=proposals,
            box_stage=box_stage,
            box_sampling=box_sampling,
            mask_stage=mask_stage,
        )
        policy = {"dtype": self.layer_dtype}
        self.rpn = RPNHead(self.strides, rpn_stage, anchors, proposals, rpn_sampling, name="rpn", **policy)
        self.rpn.build((None, None, None, maps.channels))
        self.cascade = None if cascade is None else Cascade.of(cascade)
        options = {"stage": box_stage, "sampling": box_sampling, "detection": self.detection, **policy}
        self.box_head = _box_head(self.num_classes, self.cascade, options)
        self.mask_head = MaskHead(self.num_classes, mask_stage, name="mask_head", **policy) if has_masks else None
        self.heads = further_heads(heads, self.layer_dtype)
        strides = tuple(maps.strides[level] for level in self.region_levels)
        for number, head in enumerate([self.box_head, *self.object_heads(), *self.map_heads()], start=1):
            head.connect(strides, maps.channels, self.regions, None if seed is None else seed + number, maps.trunk)
        self.declare(self, *self.all_heads().values())
        if frozen is not None:
            freeze(self, frozen)
        self.built = True

    def call(self, inputs, training=False):
        """Losses if there is ground truth among the inputs, detections otherwise.

        Args:
            inputs: dict of `images` `[B, H, W, C]` of the model's `image_type`, or as float, and `sizes` float32
                `[B, 2]` (height and width of each image inside the canvas). For training also `boxes` float32
                `[B, N, 4]`, `labels` int32 `[B, N]`, `crowd` and `valid` bool `[B, N]`, and the fields of the heads,
                such as `masks` uint8 `[B, N, M, M]` (or `[B, N, H, W]`, see `heads.mask.MaskStage`). For detection
                optionally `score_threshold`, `nms_iou` and `max_detections`, which override the model's. `proposals`
                float32 `[B, P, 4]` and `proposal_valid` bool `[B, P]` replace the RPN's where they are given (Fast
                R-CNN).
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            dict of scalars (`loss_names` and `health_names`); or dict of `boxes` float32 `[B, D, 4]` in canvas pixels,
            `labels` int32 `[B, D]`, `scores` float32 `[B, D]`, `valid` bool `[B, D]`, `proposals` float32 `[B, D, 4]`,
            the boxes before they were refined, `masks` float32 `[B, D, m, m]` probabilities inside the box, and the
            outputs of further heads.
        """
        images, sizes = inputs["images"], ops.cast(inputs["sizes"], "float32")
        truth = self.ground_truth(inputs)
        pyramid = self.features(images, sizes, training)
        pyramid, levels = self._branches(pyramid, truth is not None)
        proposed, losses = self.rpn.first_stage(
            pyramid,
            ops.shape(images)[1:3],
            sizes,
            truth,
            self.seed_generator,
            training=training,
            learn=not self.left_out(*self.rpn.LOSSES),
            given=_given_proposals(inputs),
        )
        if truth is None:
            levels = next(levels)
            found = self.box_head.detect(levels, proposed, sizes, self.limits(inputs))
            for head in self.object_heads():
                found.update(head.predict(levels, found))
            for head in self.map_heads():
                found.update(head.predict(levels))
            return found
        losses = {**dict.fromkeys((*self.loss_names, *self.health_names), ops.zeros(())), **losses}
        if self.left_out(*(name for name in self.loss_names if name not in self.rpn.LOSSES)):
            return losses
        regions, terms = self.box_head.losses(
            next(levels), proposed, truth, self.seed_generator, training, self.class_factors, sizes
        )
        losses.update(terms)
        for head in self.object_heads():
            if not self.left_out(*head.LOSSES):
                losses.update(head.losses(next(levels), regions, truth, training))
        for head in self.map_heads():
            if not self.left_out(*head.LOSSES):
                losses.update(head.losses(next(levels), truth, training))
        return losses

    def features(self, images, sizes, training=False):
        """Pixels to the pyramid: dict of `[B, H_l, W_l, C]`, finest first."""
        return self.maps(self.normalise(images, sizes), training=training)

    def _branches(self, pyramid, learn):
        """The pyramid for the RPN, and an iterator over the levels for the box head and for each head with a loss."""
        heads = (*self.object_heads(), *self.map_heads()) if learn else ()
        learning = [head for head in heads if not self.left_out(*head.LOSSES)]
        count = 2 + len(learning)
        copies = {level: branches(pyramid[level], count) for level in self.region_levels}
        ours = {**pyramid, **{level: tensors[0] for level, tensors in copies.items()}}
        return ours, iter([[tensors[i] for tensors in copies.values()] for i in range(1, count)])

    def ground_truth(self, inputs):
        """Ground truth among the inputs, checked by the heads; None if there is none."""
        truth = super().ground_truth(inputs)
        for head in (*self.object_heads(), *self.map_heads()) if truth else ():
            head.check(inputs)
        return truth

    def object_heads(self):
        """The heads that compute something per object: the mask head if there is one, then those among `heads`."""
        further = [head for head in self.heads if isinstance(head, ObjectHead)]
        return [*([self.mask_head] if self.mask_head else []), *further]

    def map_heads(self):
        """The heads among `heads` that compute something for the whole image."""
        return [head for head in self.heads if isinstance(head, MapHead)]

    def all_heads(self):
        """Heads by name, in the order in which `call` runs them."""
        return {head.name: head for head in (self.rpn, self.box_head, *self.object_heads(), *self.map_heads())}

    def parts(self):
        """Parts that hold weights by name, in the order in which `call` runs them."""
        return {"backbone": self.backbone, **({"fpn": self.fpn} if self.fpn else {}), **self.all_heads()}

    def canvas_stride(self):
        """Pixels of which the sides of a canvas are multiples: the coarsest stride of the feature maps."""
        return self.maps.canvas_stride

    def get_config(self):
        """Constructor arguments."""
        rpn, box = self.rpn, self.box_head
        groups = {
            "rpn_stage": rpn.stage,
            "anchors": rpn.anchors,
            "proposals": rpn.proposals,
            "rpn_sampling": rpn.sampling,
            "box_stage": box.stage,
            "box_sampling": box.sampling,
            "regions": self.regions,
        }
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "neck": self.neck,
            "heads": [keras.saving.serialize_keras_object(head) for head in self.heads],
            "fpn_channels": self.fpn_channels,
            "fpn_norm": self.fpn_norm,
            **{name: group.asdict() for name, group in groups.items()},
            "mask_stage": self.mask_head and self.mask_head.stage.asdict(),
            "cascade": None if self.cascade is None else self.cascade.asdict(),
            "frozen": frozen_names(self),
            "seed": self.seed,
            "weights": None,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`; configs of version 0.1.0 are converted."""
        config = compatibility.current(config)
        config["heads"] = [keras.saving.deserialize_keras_object(head, custom_objects) for head in config["heads"]]
        return super().from_config(config, custom_objects)


def _box_head(num_classes, cascade, options):
    if cascade is None:
        return BoxHead(num_classes, name="box_head", **options)
    return CascadeHead(num_classes, cascade, name="box_head", **options)


def _given_proposals(inputs):
    if "proposals" not in inputs:
        return None
    if "proposal_valid" not in inputs:
        raise ValueError("the inputs have proposals, and no proposal_valid [B, P] that says which of them are boxes")
    return Proposed(ops.cast(inputs["proposals"], "float32"), ops.cast(inputs["proposal_valid"], "bool"))
