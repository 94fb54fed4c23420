"""Second stage: class and exact box of each region (Fast R-CNN head, Girshick 2015)."""

import dataclasses
import math
import typing

import keras
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.detection import OUTPUTS, Detection, select_detections
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.heads.region_head import RegionHead, flat
from keras_maskrcnn.heads.sampled_regions import RegionSampling, count_regions, sample_regions
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.ops.losses import smooth_l1, softmax_cross_entropy
from keras_maskrcnn.options import Options, check_positive
from keras_maskrcnn.weights import rows as published

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BoxStage(Options):
    """Layers and box loss of the second stage.

    Attributes:
        pool: bins per side of the head's input: of RoIAlign, or of the trunk's result with `neck="c4"`.
        convs: number of 3×3 convolutions before the dense layers, as wide as the pyramid.
        norm: normalisation after each of them, see `layers.norm.norm`.
        average: whether the mean over the bins, instead of all bins, enters the dense layers.
        hidden: number of dense layers.
        width: units of each.
        delta_weights: factors of the regression targets.
        beta: error at which smooth L1 changes from quadratic to linear; 0 is L1.
        class_agnostic: whether a region has one box for all classes instead of one for each class.
    """

    RANGES: typing.ClassVar = {
        "pool": (1, math.inf),
        "convs": (0, math.inf),
        "hidden": (0, math.inf),
        "width": (1, math.inf),
        "beta": (0, math.inf),
    }

    pool: int = 7
    convs: int = 0
    norm: str | None = None
    average: bool = False
    hidden: int = 2
    width: int = 1024
    delta_weights: tuple = (10.0, 10.0, 5.0, 5.0)
    beta: float = 1.0 / 9.0
    class_agnostic: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_positive("delta_weights", self.delta_weights, 4)


# Detection --------------------------------------------------------------------------------------------------------


def detections(probabilities, boxes, proposed, sizes, limits, options):
    """The dict that `BoxHead.detect` returns.

    Args:
        probabilities: float32 `[B, P, K + 1]`.
        boxes: float32 `[B, P, K + 1, 4]` or `[B, P, 1, 4]`, refined boxes.
        proposed: `rpn.Proposed`.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.
        limits: `detection.Limits`; None takes the options'.
        options: `Detection`.
    """
    limits = limits or options.limits()
    found = select_detections(probabilities, boxes, proposed.valid, sizes, limits, **options.selection())
    proposals = ops.where(found["valid"][..., None], take_rows(proposed.boxes, found.pop("region")), 0.0)
    return {**found, "proposals": proposals}


# Layer ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class BoxHead(RegionHead):
    """Optional convolutions, fully connected layers, then class logits and box deltas.

    Args:
        num_classes: classes without background; outputs have `num_classes + 1` columns, 0 is background.
        stage: `BoxStage`, or a dict of its fields, as the groups below.
        sampling: `RegionSampling`.
        detection: `Detection`.
    """

    LOSSES = ("class_loss", "box_loss")
    HEALTH = ("foreground", "background")
    OUTPUTS = (*OUTPUTS, Output("proposals", "boxes"))
    PER_CLASS = ("classes", "deltas")

    def __init__(self, num_classes, stage=None, sampling=None, detection=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.stage = BoxStage.of(stage)
        self.sampling = RegionSampling.of(sampling)
        self.detection = Detection.of(detection)
        self.pool = self.stage.pool
        if self.stage.class_agnostic:
            self.PER_CLASS = ("classes",)

    @property
    def boxes_per_region(self):
        """Boxes that are predicted for a region: 1, or one for each class and background."""
        return 1 if self.stage.class_agnostic else self.num_classes + 1

    def build(self, input_shape):
        """Create the layers for crops of `input_shape` (N, P, P, C)."""
        dense = {"dtype": self.dtype_policy}
        self.stack = ConvStack(self.stage.convs, input_shape[-1], self.stage.norm, name="stack", **dense)
        width, outputs = self.stage.width, self.num_classes + 1
        self.hidden = [
            keras.layers.Dense(width, activation="relu", kernel_initializer="he_normal", name=f"fc{i + 1}", **dense)
            for i in range(self.stage.hidden)
        ]
        self.classes = keras.layers.Dense(
            outputs, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="classes", **dense
        )
        self.deltas = keras.layers.Dense(
            4 * self.boxes_per_region,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            name="deltas",
            **dense,
        )
        self.stack.build(input_shape)
        units = input_shape[3] * (1 if self.stage.average else input_shape[1] * input_shape[2])
        for layer in self.hidden:
            layer.build((None, units))
            units = width
        self.classes.build((None, units))
        self.deltas.build((None, units))

    @property
    def convs(self):
        """The convolutions before the hidden layers."""
        return self.stack.convs

    @property
    def norms(self):
        """Their normalisations; empty without."""
        return self.stack.norms

    def call(self, crops, training=False, valid=None):
        """Classify crops and refine their boxes.

        Args:
            crops: `[N, P, P, C]`.
            training: whether batch normalisation uses the batch's statistics.
            valid: bool `[N]`, the regions that these statistics are computed from; None for all.

        Returns:
            (logits, deltas): float32 `[N, K + 1]` and `[N, K + 1, 4]`; `[N, 1, 4]` if they are class-agnostic.
        """
        crops = self.stack(crops, training=training, valid=valid)
        if self.stage.average:
            hidden = ops.mean(ops.cast(crops, "float32"), axis=(1, 2))
        else:
            hidden = ops.reshape(crops, (-1, crops.shape[1] * crops.shape[2] * crops.shape[3]))
        for layer in self.hidden:
            hidden = layer(hidden)
        deltas = ops.reshape(self.deltas(hidden), (-1, self.boxes_per_region, 4))
        return ops.cast(self.classes(hidden), "float32"), ops.cast(deltas, "float32")

    def classify(self, levels, boxes, training=False, valid=None):
        """Class logits `[B, R, K + 1]` and deltas `[B, R, K + 1, 4]`, or `[B, R, 1, 4]`, of boxes `[B, R, 4]`.

        Batch statistics are computed from the boxes that are `valid`, bool `[B, R]`; None for all.
        """
        return self.classify_crops(self.crops(levels, boxes, training, valid), training, valid)

    def classify_crops(self, crops, training=False, valid=None):
        """What `classify` returns, for crops `[B, R, P, P, C]`."""
        logits, deltas = self(flat(crops), training=training, valid=None if valid is None else flat(valid))
        count = crops.shape[1] or ops.shape(crops)[1]
        return (
            ops.reshape(logits, (-1, count, self.num_classes + 1)),
            ops.reshape(deltas, (-1, count, self.boxes_per_region, 4)),
        )

    def losses(self, levels, proposed, truth, seed, training=False, class_weights=None, sizes=None):
        """Sample regions and compute the losses of the second stage (Fast R-CNN, eq. 1), divided by their number.

        Args:
            levels: list of `[B, H, W, C]`, the levels that regions are sampled from.
            proposed: `rpn.Proposed`.
            truth: dict of ground truth.
            seed: `keras.random.SeedGenerator` of the sampler.
            training: whether batch normalisation uses the batch's statistics.
            class_weights: as for `region_losses`.
            sizes: float32 `[B, 2]`, height and width of each image inside the input; only `cascade.CascadeHead`, which
                trains with boxes that it refines, needs them.

        Returns:
            (`SampledRegions`, dict of the scalars in `LOSSES` and `HEALTH`).
        """
        regions = sample_regions(proposed, truth, self.sampling, seed)
        crops = self.crops(levels, regions.boxes, training, regions.valid)
        logits, deltas = self.classify_crops(crops, training, regions.valid)
        regions = regions._replace(crops=crops if self.trunk else None)
        foreground, background = count_regions(regions)
        health = {"foreground": foreground, "background": background}
        return regions, {**self.region_losses(logits, deltas, regions, truth, class_weights), **health}

    def region_losses(self, logits, deltas, regions, truth, class_weights=None):
        """Classification loss, and box loss of the deltas of each region's own class.

        With class weights the classification error of a region is multiplied by the factor of its true class; the
        number of regions stays the divisor.

        Args:
            logits: float32 `[B, S, K + 1]`.
            deltas: float32 `[B, S, K + 1, 4]`, or `[B, S, 1, 4]`.
            regions: `SampledRegions`.
            truth: dict of ground truth.
            class_weights: float32 `[K + 1]`, factors of background and of the classes; None for 1.

        Returns:
            dict of scalars.
        """
        count = ops.sum(ops.cast(regions.valid, "float32"))
        class_error = softmax_cross_entropy(logits, regions.label)
        if class_weights is not None:
            class_error = class_error * ops.take(class_weights, regions.label)
        if not self.stage.class_agnostic:
            deltas = ops.take_along_axis(deltas, regions.label[..., None, None], axis=2)
        target = box_ops.encode(take_rows(truth["boxes"], regions.matched), regions.boxes, self.stage.delta_weights)
        box_error = smooth_l1(deltas[:, :, 0] - target, self.stage.beta)
        return {
            "class_loss": replicas.global_mean(class_error, regions.valid, count),
            "box_loss": replicas.global_mean(box_error, regions.positive[..., None], count),
        }

    def detect(self, levels, proposed, sizes, limits=None):
        """Detections: refined boxes after NMS.

        Args:
            levels: list of `[B, H, W, C]`, the levels that regions are sampled from.
            proposed: `rpn.Proposed`.
            sizes: float32 `[B, 2]`, height and width of each image inside the input.
            limits: `detection.Limits`; None takes the options'.

        Returns:
            dict of the tensors `[B, D, ...]` in `OUTPUTS`, and `valid` bool `[B, D]`. `proposals` are the boxes before
            they were refined.
        """
        logits, deltas = self.classify(levels, proposed.boxes)
        boxes = box_ops.decode(deltas, proposed.boxes[:, :, None], self.stage.delta_weights)
        return detections(ops.softmax(logits, axis=-1), boxes, proposed, sizes, limits, self.detection)

    def published(self, source, names):
        """Rows of published arrays, see `PUBLISHED` below."""
        return PUBLISHED[source](self, names)

    def get_config(self):
        """Constructor arguments."""
        groups = ("stage", "sampling", "detection")
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            **{group: getattr(self, group).asdict() for group in groups},
        }


# Published arrays -------------------------------------------------------------------------------------------------


def _torchvision(head, names):
    theirs, predictor = "roi_heads.box_head", "roi_heads.box_predictor"
    for i, conv in enumerate(head.convs):
        yield from published.torch_layer(conv, f"box_head.convs.{i}", f"{theirs}.{i}.0", published.torch_conv)
    for i, norm in enumerate(head.norms):
        yield from published.torch_norm(norm, f"box_head.norms.{i}", f"{theirs}.{i}.1")
    for i, dense in enumerate(head.hidden):
        # With convolutions the head is a numbered sequence in which flattening and ReLUs count; without, it has names.
        number = len(head.convs) + 1 + 2 * i if head.convs else f"fc{6 + i}"
        yield from published.torch_layer(dense, f"box_head.hidden.{i}", f"{theirs}.{number}", _dense(head, i))
    for ours, name in (("classes", "cls_score"), ("deltas", "bbox_pred")):
        layer = getattr(head, ours)
        yield from published.torch_layer(layer, f"box_head.{ours}", f"{predictor}.{name}", published.torch_dense)


def _detectron2(head, names):
    yield from detectron2_rows(head, "box_head", "")


def detectron2_rows(head, ours, number):
    """Rows of detectron2's arrays.

    Args:
        head: `BoxHead`.
        ours: readable name of the head, such as "box_head".
        number: what their names have after `box_head` and `box_predictor`: "", or the stage of a cascade, such as ".0".
    """
    theirs, predictor = f"roi_heads.box_head{number}", f"roi_heads.box_predictor{number}"
    yield from published.detectron2_convs(head, ours, f"{theirs}.conv")
    for i, dense in enumerate(head.hidden):
        yield from published.torch_layer(dense, f"{ours}.hidden.{i}", f"{theirs}.fc{i + 1}", _dense(head, i))
    outputs = (
        ("classes", "cls_score", published.background_first),
        ("deltas", "bbox_pred", published.same if head.stage.class_agnostic else published.with_background(4)),
    )
    for name, their_name, classes in outputs:
        kernel = published.then(published.torch_dense, classes)
        layer = getattr(head, name)
        yield from published.torch_layer(layer, f"{ours}.{name}", f"{predictor}.{their_name}", kernel, bias=classes)


def _dense(head, number):
    """The transform of a dense kernel; the first one follows flattened crops, unless they are averaged."""
    return published.torch_dense if number or head.stage.average else published.torch_flattened(head.pool)


def _matterport(head, names):
    for i, dense in enumerate(head.hidden):
        conv, norm = f"mrcnn_class_conv{i + 1}", f"mrcnn_class_bn{i + 1}"
        yield from published.folded(dense, f"box_head.hidden.{i}", conv, norm, published.region_kernel)
    yield from published.keras_layer(head.classes, "box_head.classes", "mrcnn_class_logits")
    deltas = published.reordered_deltas
    yield from published.keras_layer(head.deltas, "box_head.deltas", "mrcnn_bbox_fc", deltas, deltas)


PUBLISHED = {"torchvision": _torchvision, "detectron2": _detectron2, "matterport": _matterport}
