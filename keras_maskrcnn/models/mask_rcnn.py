"""Mask R-CNN (He et al. 2017): image → features → proposals → regions → heads → losses or detections."""

import keras
from keras import ops

from keras_maskrcnn import backbones
from keras_maskrcnn.backend.rows import active_rows, restore_rows
from keras_maskrcnn.layers.box_head import BoxHead
from keras_maskrcnn.layers.fpn import FPN
from keras_maskrcnn.layers.mask_head import MaskHead
from keras_maskrcnn.layers.roi_align import RoIAlign
from keras_maskrcnn.layers.rpn import RPNHead
from keras_maskrcnn.models import losses, options
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import rows
from keras_maskrcnn.ops.masks import mask_targets, sampled_mask_targets
from keras_maskrcnn.ops.proposals import select_detections, select_proposals

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
RPN_LOSSES = ("rpn_class_loss", "rpn_box_loss")
REGION_LOSSES = ("class_loss", "box_loss", "mask_loss")


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class MaskRCNN(InstanceModel):
    """Two-stage instance segmentation. One model trains, evaluates, predicts and exports.

    Args:
        num_classes: classes K without background.
        backbone: "resnet10" … "resnet101", "simple_cnn"; a dict of such a name and options; or a Keras model with
            outputs {"C2": …}, see `backbones.get`.
        neck: "fpn", or None to work on the backbone's last level alone.
        class_names: K names, stored with the model.
        image_size: (height, width) of the canvas into which `detect` and the SavedModel fit pictures; None takes it
            from the first data that `fit` sees, and until then `resize` rules. Multiples of the coarsest backbone
            stride (32 for ResNets).
        resize: `options.Resize`, how pictures reach the network's scale where there is no `image_size`.
        fpn_channels: width of the pyramid.
        fpn_norm: normalisation in the pyramid, None or a kind of `layers.norm.norm`.
        rpn_stage: `options.RPNStage` or a dict of its fields, like all groups below.
        anchors: `options.Anchors`.
        proposals: `options.Proposals`.
        rpn_sampling: `options.AnchorSampling`.
        box_sampling: `options.RegionSampling`.
        regions: `options.Regions`, RoIAlign's conventions.
        box_stage: `options.BoxStage`.
        mask_stage: `options.MaskStage`.
        detection: `options.Detection`.
        pixel_mean: mean of the R, G, B values 0…255 that the backbone expects.
        pixel_std: their standard deviation.
        seed: seed of the samplers; None draws one.
        dtype: Keras dtype policy of the layers, such as "mixed_bfloat16". Coordinates, losses, box decoding and NMS
            run in float32 under any policy.

    Raises:
        ValueError: in one line, for `num_classes` below 1, unknown names, or class names that do not fit.
    """

    LOSSES = RPN_LOSSES + REGION_LOSSES
    HEALTH = ("proposal_recall", "foreground", "background")

    def __init__(
        self,
        num_classes,
        backbone="resnet50",
        neck="fpn",
        *,
        class_names=None,
        image_size=None,
        resize=None,
        fpn_channels=256,
        fpn_norm=None,
        rpn_stage=None,
        anchors=None,
        proposals=None,
        rpn_sampling=None,
        box_sampling=None,
        regions=None,
        box_stage=None,
        mask_stage=None,
        detection=None,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        seed=None,
        dtype=None,
        name="mask_rcnn",
    ):
        super().__init__(num_classes, class_names, image_size, resize, detection, pixel_mean, pixel_std, dtype, name)
        if neck not in ("fpn", None):
            raise ValueError(f"neck={neck!r} is not 'fpn' or None")
        self.backbone = backbones.get(backbone, self.layer_dtype)
        self.neck, self.fpn_channels, self.fpn_norm, self.seed = neck, fpn_channels, fpn_norm, seed
        self.rpn_stage = options.RPNStage.of(rpn_stage)
        self.anchors = options.Anchors.of(anchors)
        self.proposals = options.Proposals.of(proposals)
        self.rpn_sampling = options.AnchorSampling.of(rpn_sampling)
        self.box_sampling = options.RegionSampling.of(box_sampling)
        self.regions = options.Regions.of(regions)
        self.box_stage = options.BoxStage.of(box_stage)
        self.mask_stage = options.MaskStage.of(mask_stage)
        self.seed_generator = keras.random.SeedGenerator(seed)
        if self.image_size:
            self.check_canvas(self.image_size)
        self._build_heads(*self._build_pyramid())
        self.built = True

    def canvas_stride(self):
        """Pixels of which the sides of a canvas are multiples: the backbone's coarsest stride."""
        return 2 ** max(int(level[1:]) for level in self.backbone.output)

    def check_canvas(self, image_size):
        """Refuses a canvas (height, width) whose sides the backbone does not divide evenly."""
        stride = self.canvas_stride()
        if any(side % stride for side in image_size):
            raise ValueError(f"image_size={tuple(image_size)} must be multiples of {stride}, the backbone's stride")

    def _build_pyramid(self):
        """Make the neck; returns the names of the levels that the RPN looks at, finest first, and their width."""
        features = dict(sorted(self.backbone.output.items()))
        if self.neck is None:
            coarsest = list(features)[-1]
            return [coarsest], features[coarsest].shape[-1]
        self.fpn = FPN(self.fpn_channels, norm=self.fpn_norm, name="fpn", dtype=self.layer_dtype)
        self.fpn.build({level: tensor.shape for level, tensor in features.items()})
        return list(self.fpn.compute_output_spec(features)), self.fpn_channels

    def _build_heads(self, levels, channels):
        """Make the RPN, and the two heads with the RoIAligns that feed them."""
        self.strides = tuple(2 ** int(level[1:]) for level in levels)
        self.region_levels = self._region_levels(levels)
        given = len(self.anchors.sizes or levels)
        if given != len(levels):
            raise ValueError(
                f"anchors has sizes for {given} levels, the RPN looks at {len(levels)}: {', '.join(levels)}"
            )
        rpn, box, mask, policy = self.rpn_stage, self.box_stage, self.mask_stage, {"dtype": self.layer_dtype}
        self.rpn = RPNHead(self.anchors.per_location(), rpn.channels, rpn.depth, rpn.norm, name="rpn", **policy)
        self.rpn.build((None, None, None, channels))
        self.box_align, self.mask_align = self._align(box.pool, "box_align", 1), self._align(mask.pool, "mask_align", 2)
        self.box_head = BoxHead(self.num_classes, box.width, box.hidden, box.convs, box.norm, name="box_head", **policy)
        self.mask_head = MaskHead(self.num_classes, mask.width, mask.depth, mask.norm, name="mask_head", **policy)
        self.box_head.build((None, box.pool, box.pool, channels))
        self.mask_head.build((None, mask.pool, mask.pool, channels))

    def _region_levels(self, levels):
        """Names of the levels that regions are cut from."""
        # P6 feeds the RPN alone (FPN paper, section 4.1).
        usual = levels[:-1] if self.neck else levels
        if self.regions.level is None:
            return usual
        only = [level for level in usual if int(level[1:]) == self.regions.level]
        if not only:
            raise ValueError(f"regions level={self.regions.level} is not one of {', '.join(usual)}")
        return only

    def _align(self, bins, name, number):
        strides = tuple(2 ** int(level[1:]) for level in self.region_levels)
        seed = None if self.seed is None else self.seed + number
        return RoIAlign(bins, strides, name=name, seed=seed, **self.regions.align())

    def call(self, inputs, training=False):
        """Losses where ground truth is among the inputs, detections where it is not.

        Args:
            inputs: dict of `images` uint8 or float `[B, H, W, 3]` with values 0…255, `sizes` float32 `[B, 2]` (height
                and width of each image inside the canvas); for training also `boxes` float32 `[B, N, 4]`, `labels`
                int32 `[B, N]`, `masks` uint8 `[B, N, M, M]` (or `[B, N, H, W]`, see `options.MaskStage.targets`),
                `crowd` and `valid` bool `[B, N]`. `proposals` float32 `[B, P, 4]` and `proposal_valid` bool `[B, P]`
                stand in for the RPN's where they are given (Fast R-CNN).
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            dict of scalars (`LOSSES` and `HEALTH`); or dict of `boxes` float32 `[B, D, 4]` in canvas pixels, `labels`
            int32 `[B, D]`, `scores` float32 `[B, D]`, `masks` float32 `[B, D, m, m]` probabilities inside the box,
            `valid` bool `[B, D]`, `proposals` float32 `[B, D, 4]`, the boxes before they were refined.
        """
        sizes = ops.cast(inputs["sizes"], "float32")
        features = self.features(inputs["images"], sizes, training)
        anchors = self.anchors.boxes(ops.shape(inputs["images"])[1:3], self.strides)
        logits, deltas = self.rpn(list(features.values()), training=training and not self.left_out(*RPN_LOSSES))
        if "proposals" in inputs:
            proposals, valid = inputs["proposals"], ops.cast(inputs["proposal_valid"], "bool")
        else:
            proposals, valid = self.propose(logits, deltas, anchors, sizes, training)
        features = [features[level] for level in self.region_levels]
        if "boxes" not in inputs:
            return self.detections(features, proposals, valid, sizes)
        truth = self.truth(inputs)
        return {
            **self.rpn_losses(logits, deltas, anchors, truth, sizes),
            **self.region_losses(features, proposals, valid, truth, training),
            "proposal_recall": losses.proposal_recall(proposals, valid, truth),
        }

    def features(self, images, sizes, training=False):
        """Pixels to the pyramid: dict of `[B, H_l, W_l, C]`, finest first."""
        features = self.backbone(self.normalise(images, sizes), training=training)
        if self.neck is None:
            level = max(features)
            return {level: features[level]}
        return self.fpn(features, training=training)

    def propose(self, logits, deltas, anchors, sizes, training=False):
        """The RPN's boxes: float32 `[B, P, 4]` and bool `[B, P]`; data to what follows, no path for gradients."""
        logits, deltas = ([ops.stop_gradient(x) for x in levels] for levels in (logits, deltas))
        boxes, _, valid = select_proposals(logits, deltas, anchors, sizes, **self.proposals.limits(training))
        return boxes, valid

    def rpn_losses(self, logits, deltas, anchors, truth, sizes):
        """First-stage losses over anchors of all levels."""
        if self.left_out(*RPN_LOSSES):
            return dict.fromkeys(RPN_LOSSES, ops.zeros(()))
        class_loss, box_loss = losses.rpn_losses(
            ops.concatenate(logits, axis=1),
            ops.concatenate(deltas, axis=1),
            ops.concatenate([ops.convert_to_tensor(a) for a in anchors], axis=0),
            truth,
            self.rpn_sampling,
            self.rpn_stage.beta,
            self.seed_generator,
            sizes,
        )
        return {"rpn_class_loss": class_loss, "rpn_box_loss": box_loss}

    def region_losses(self, features, proposals, valid, truth, training=False):
        """Second-stage losses over sampled regions, masks over the positive ones."""
        if self.left_out(*REGION_LOSSES):
            return dict.fromkeys((*REGION_LOSSES, "foreground", "background"), ops.zeros(()))
        regions = losses.sample_regions(proposals, valid, truth, self.box_sampling, self.seed_generator)
        logits, deltas = self.classify(features, regions.boxes, training)
        class_loss, box_loss = losses.box_losses(logits, deltas, regions, truth, self.box_stage)
        images = ops.cast(ops.shape(regions.boxes)[0], "float32")
        positive = ops.sum(ops.cast(regions.positive, "float32"))
        return {
            "class_loss": class_loss,
            "box_loss": box_loss,
            "mask_loss": ops.zeros(())
            if self.left_out("mask_loss")
            else self.mask_loss(features, regions, truth, training),
            "foreground": positive / images,
            "background": (ops.sum(ops.cast(regions.valid, "float32")) - positive) / images,
        }

    def classify(self, features, boxes, training=False):
        """Class logits `[B, R, K + 1]` and deltas `[B, R, K + 1, 4]` of boxes `[B, R, 4]`."""
        regions = self.box_align(features, boxes, training=training)
        logits, deltas = self.box_head(_flat(regions), training=training)
        count, outputs = boxes.shape[1], self.num_classes + 1
        return ops.reshape(logits, (-1, count, outputs)), ops.reshape(deltas, (-1, count, outputs, 4))

    def mask_loss(self, features, regions, truth, training=False):
        """Mask loss over the slots that may hold positives."""
        slots = regions.positive_slots
        index = active_rows(_flat(regions.positive[:, :slots]))
        boxes, labels, positive, matched = (
            ops.take(_flat(values[:, :slots]), index, axis=0)
            for values in (regions.boxes, regions.label, regions.positive, regions.matched)
        )
        image = index // slots
        crops = self.mask_align.align_rows(features, boxes, image, training=training)
        logits = self.mask_head(crops, labels, training=training)
        targets = self.mask_targets(truth, image * truth.masks.shape[1] + matched, boxes)
        return losses.mask_loss(logits, ops.stop_gradient(targets), positive)

    def mask_targets(self, truth, instance, boxes):
        """What the mask head should say about regions.

        Args:
            truth: `losses.Truth`.
            instance: int32 `[R]`, row of each region's instance among the instances of all images.
            boxes: float32 `[R, 4]`, the regions.

        Returns:
            float32 `[R, m, m]` in [0, 1].
        """
        masks, size = _flat(truth.masks), 2 * self.mask_stage.pool
        if self.mask_stage.targets == "roi_align":
            return sampled_mask_targets(masks, instance, boxes, size)
        masks, mask_boxes = (ops.take(values, instance, axis=0) for values in (masks, _flat(truth.boxes)))
        return mask_targets(masks, mask_boxes, boxes, size)

    def detections(self, features, proposals, valid, sizes):
        """Refined boxes after NMS, and the masks of exactly those boxes."""
        logits, deltas = self.classify(features, proposals)
        boxes = box_ops.decode(deltas, proposals[:, :, None], self.box_stage.delta_weights)
        boxes, scores, labels, valid, region = select_detections(
            ops.softmax(logits, axis=-1), boxes, valid, sizes, **self.detection.limits()
        )
        masks = self.predict_masks(features, boxes, labels, valid)
        proposals = ops.where(valid[..., None], rows(proposals, region), 0.0)
        names = ("boxes", "labels", "scores", "masks", "valid", "proposals")
        return dict(zip(names, (boxes, labels, scores, masks, valid, proposals), strict=True))

    def predict_masks(self, features, boxes, labels, valid):
        """Mask probabilities `[B, D, m, m]` of detections; zeros where not valid."""
        count = boxes.shape[1]
        boxes, labels, valid = _flat(boxes), _flat(labels), _flat(valid)
        index = active_rows(valid)
        regions = self.mask_align.align_rows(features, ops.take(boxes, index, axis=0), index // count)
        masks = ops.sigmoid(self.mask_head(regions, ops.take(labels, index, axis=0)))
        masks = ops.where(ops.take(valid, index)[:, None, None], masks, 0.0)
        masks = restore_rows(masks, index, ops.shape(valid)[0])
        return ops.reshape(masks, (-1, count, *masks.shape[1:]))

    def truth(self, inputs):
        """Ground truth among the inputs as a `losses.Truth`.

        Raises:
            ValueError: if the masks are not of the form that `options.MaskStage.targets` needs.
        """
        if self.mask_stage.targets == "roi_align" and inputs["masks"].shape[2:] != inputs["images"].shape[1:3]:
            raise ValueError(
                'mask_stage targets="roi_align" needs masks of the whole canvas: data.batches(mask_size="canvas")'
            )
        return losses.read_truth(inputs)

    def get_config(self):
        """Constructor arguments."""
        groups = (
            "rpn_stage",
            "anchors",
            "proposals",
            "rpn_sampling",
            "box_sampling",
            "regions",
            "box_stage",
            "mask_stage",
            "detection",
        )
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "neck": self.neck,
            "fpn_channels": self.fpn_channels,
            "fpn_norm": self.fpn_norm,
            **{group: getattr(self, group).asdict() for group in groups},
            "seed": self.seed,
        }


def _flat(values):
    """Rows of all images in one: `[B, R, ...]` to `[B * R, ...]`."""
    return ops.reshape(values, (-1, *values.shape[2:]))
