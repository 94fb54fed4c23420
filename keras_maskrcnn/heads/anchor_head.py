"""Prediction head of a one-stage detector: class, box and mask coefficients of every anchor (YOLACT, section 3.2)."""

import dataclasses
import math
import typing

import keras
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.backend.branches import branches
from keras_maskrcnn.heads.anchors import Anchors
from keras_maskrcnn.heads.detection import OUTPUTS, Detection, select_detections
from keras_maskrcnn.heads.outputs import Declarations
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.ops.losses import smooth_l1, softmax_cross_entropy
from keras_maskrcnn.ops.matching import NEGATIVE, POSITIVE, match
from keras_maskrcnn.ops.sampling import hardest
from keras_maskrcnn.options import Options, check_positive

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AnchorStage(Options):
    """Layers and losses of the prediction head.

    Attributes:
        width: channels of the 3×3 convolutions before the outputs.
        depth: number of these convolutions.
        delta_weights: factors of the regression targets: the inverses of SSD's variances, 0.1 for the centre and 0.2
            for the size.
        beta: error at which smooth L1 changes from quadratic to linear; 0 is L1.
        class_weight: factor of the class loss.
        box_weight: factor of the box loss.
    """

    RANGES: typing.ClassVar = {
        "width": (1, math.inf),
        "depth": (0, math.inf),
        "beta": (0, math.inf),
        "class_weight": (0, math.inf),
        "box_weight": (0, math.inf),
    }

    width: int = 256
    depth: int = 1
    delta_weights: tuple = (10.0, 10.0, 5.0, 5.0)
    beta: float = 1.0
    class_weight: float = 1.0
    box_weight: float = 1.5

    def __post_init__(self):
        super().__post_init__()
        check_positive("delta_weights", self.delta_weights, 4)


@dataclasses.dataclass(frozen=True)
class AnchorMatching(Options):
    """Which anchors are trained, and on what (SSD, Liu et al. 2016, section 2.2, with the thresholds of YOLACT).

    Attributes:
        high: minimum IoU of a positive.
        low: IoU below which an anchor is negative; anchors between the two are neutral.
        crowd_cover: share of an anchor's area inside the box of a crowd region from which a negative is neutral; None
            makes it negative.
        negatives: negatives per positive of the same image in the class loss: those of the highest loss.

    Raises:
        ValueError: for thresholds that are not 0 ≤ low ≤ high ≤ 1, or fewer than 0 negatives.
    """

    RANGES: typing.ClassVar = {"crowd_cover": (0, 1)}

    high: float = 0.5
    low: float = 0.4
    crowd_cover: float | None = 0.7
    negatives: float = 3.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"low={self.low!r}, high={self.high!r} must be 0 ≤ low ≤ high ≤ 1")
        if not self.negatives >= 0:
            raise ValueError(f"negatives={self.negatives!r} must be 0 or more")


# Layer ------------------------------------------------------------------------------------------------------------


class Predicted(typing.NamedTuple):
    """Outputs of the head for all anchors, in the order of `ops.anchors.pyramid_anchors`.

    Attributes:
        logits: float32 `[B, A, K + 1]`, background first.
        deltas: float32 `[B, A, 4]`.
        coefficients: float32 `[B, A, k]` in [-1, 1], the weights of the prototypes.
    """

    logits: typing.Any
    deltas: typing.Any
    coefficients: typing.Any


class Assigned(typing.NamedTuple):
    """Ground truth of all anchors.

    Attributes:
        anchors: float32 `[A, 4]`.
        matched: int32 `[B, A]`, a row of the ground truth.
        role: int32 `[B, A]`, see `ops.matching.match`.
    """

    anchors: typing.Any
    matched: typing.Any
    role: typing.Any


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class AnchorHead(Declarations, keras.layers.Layer):
    """3×3 convolutions with ReLU, then one for each output, with weights shared by all levels.

    Args:
        num_classes: classes without background.
        strides: strides of the levels, finest first.
        coefficients: mask coefficients of an anchor, k.
        stage: `AnchorStage`, or a dict of its fields, as all groups below.
        anchors: `Anchors`.
        matching: `AnchorMatching`.
        detection: `Detection`.

    Raises:
        ValueError: if `anchors` has sizes for another number of levels.
    """

    LOSSES = ("class_loss", "box_loss")
    HEALTH = ("positives", "negatives")
    OUTPUTS = OUTPUTS
    PER_CLASS = ("classes",)

    def __init__(
        self, num_classes, strides, coefficients=32, stage=None, anchors=None, matching=None, detection=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.num_classes, self.strides, self.coefficients = num_classes, tuple(strides), coefficients
        self.stage = AnchorStage.of(stage)
        self.anchors = Anchors.of(anchors)
        self.matching = AnchorMatching.of(matching)
        self.detection = Detection.of(detection)
        self.num_anchors = self.anchors.per_location()
        given, levels = len(self.anchors.sizes or self.strides), len(self.strides)
        if given != levels:
            raise ValueError(f"anchors has sizes for {given} levels, the pyramid has {levels}")

    @property
    def columns(self):
        """Numbers per anchor by the names of the output layers."""
        return {"classes": self.num_classes + 1, "deltas": 4, "masks": self.coefficients}

    def build(self, input_shape):
        """Create the layers for levels of `input_shape` (…, C)."""
        policy = {"dtype": self.dtype_policy}
        self.stack = ConvStack(self.stage.depth, self.stage.width, name="stack", **policy)
        self.stack.build((None, None, None, input_shape[-1]))
        hidden = self.stack.compute_output_shape((None, None, None, input_shape[-1]))
        for name, numbers in self.columns.items():
            layer = keras.layers.Conv2D(self.num_anchors * numbers, 3, padding="same", name=name, **policy)
            layer.build(hidden)
            setattr(self, name, layer)

    def call(self, levels):
        """`Predicted` for all anchors of a list of levels `[B, H, W, C]`, finest first."""
        parts = [self._level(level) for level in levels]
        logits, deltas, coefficients = (ops.concatenate(outputs, axis=1) for outputs in zip(*parts, strict=True))
        return Predicted(logits, deltas, ops.tanh(coefficients))

    def _level(self, level):
        """The three outputs of a level, each float32 `[B, H·W·A, numbers]`."""
        copies = branches(self.stack(level), len(self.columns))
        return [
            ops.cast(_by_anchor(getattr(self, name)(hidden), numbers), "float32")
            for hidden, (name, numbers) in zip(copies, self.columns.items(), strict=True)
        ]

    def boxes(self, canvas, levels):
        """Anchors of all levels `[B, H, W, C]` for a canvas (height, width): float32 `[A, 4]`."""
        cells = [ops.shape(level)[1:3] for level in levels]
        anchors = self.anchors.boxes(canvas, self.strides, cells)
        return ops.concatenate([ops.convert_to_tensor(level) for level in anchors], axis=0)

    # Training -----------------------------------------------------------------------------------------------------

    def assign(self, anchors, truth):
        """`Assigned` ground truth of anchors float32 `[A, 4]`."""
        rule = self.matching
        matched, role = match(
            anchors,
            truth["boxes"],
            truth["valid"],
            truth["crowd"],
            high=rule.high,
            low=rule.low,
            keep_best="one_each",
            crowd_cover=rule.crowd_cover,
        )
        return Assigned(anchors, matched, role)

    def losses(self, predicted, assigned, truth, class_weights=None):
        """Class loss over positives and hard negatives, and box loss over positives (SSD, equation 1).

        Both are divided by the number of positives of the batch, and the class loss of an image without positives is 0,
        as it has no hard negatives either.

        Args:
            predicted: `Predicted`.
            assigned: `Assigned`.
            truth: dict of ground truth.
            class_weights: float32 `[K + 1]`, factors of background and of the classes; None for 1.

        Returns:
            dict of the scalars in `LOSSES` and `HEALTH`; the latter are anchors per image.
        """
        positive = assigned.role == POSITIVE
        label = ops.where(positive, take_rows(truth["labels"], assigned.matched), 0)
        negative = self._hard_negatives(predicted.logits, assigned.role)
        class_error = softmax_cross_entropy(predicted.logits, label)
        if class_weights is not None:
            class_error = class_error * ops.take(class_weights, label)
        target = box_ops.encode(take_rows(truth["boxes"], assigned.matched), assigned.anchors, self.stage.delta_weights)
        box_error = smooth_l1(predicted.deltas - target, self.stage.beta)
        counts = [ops.sum(ops.cast(mask, "float32")) for mask in (positive, negative)]
        trained = ops.logical_or(positive, negative)
        per_image = [count / ops.cast(ops.shape(positive)[0], "float32") for count in counts]
        return {
            "class_loss": self.stage.class_weight * replicas.global_mean(class_error, trained, counts[0]),
            "box_loss": self.stage.box_weight * replicas.global_mean(box_error, positive[..., None], counts[0]),
            **dict(zip(self.HEALTH, per_image, strict=True)),
        }

    def _hard_negatives(self, logits, role):
        """Bool `[B, A]`: the negatives of the highest loss, in proportion to the positives of their image."""
        loss = ops.stop_gradient(ops.logsumexp(logits, axis=-1) - logits[..., 0])
        positives = ops.sum(ops.cast(role == POSITIVE, "float32"), axis=1)
        return hardest(loss, role == NEGATIVE, ops.floor(self.matching.negatives * positives))

    # Detection ----------------------------------------------------------------------------------------------------

    def detect(self, predicted, anchors, sizes, limits=None):
        """Detections after NMS.

        Args:
            predicted: `Predicted`.
            anchors: float32 `[A, 4]`.
            sizes: float32 `[B, 2]`, height and width of each image inside the input.
            limits: `detection.Limits`; None takes the options'.

        Returns:
            (dict of the tensors `[B, D, ...]` in `OUTPUTS` and `valid` bool `[B, D]`, coefficients float32
            `[B, D, k]`).
        """
        boxes = box_ops.decode(predicted.deltas, anchors, self.stage.delta_weights)[:, :, None]
        probabilities = ops.softmax(predicted.logits, axis=-1)
        valid = ops.ones_like(probabilities[..., 0], dtype="bool")
        found = select_detections(
            probabilities, boxes, valid, sizes, limits or self.detection.limits(), **self.detection.selection()
        )
        return found, take_rows(predicted.coefficients, found.pop("region"))

    def get_config(self):
        """Constructor arguments."""
        groups = ("stage", "anchors", "matching", "detection")
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "strides": list(self.strides),
            "coefficients": self.coefficients,
            **{group: getattr(self, group).asdict() for group in groups},
        }


def _by_anchor(outputs, numbers):
    """Outputs `[B, H, W, A·numbers]` as rows, `[B, H·W·A, numbers]`."""
    _, height, width, channels = ops.shape(outputs)
    return ops.reshape(outputs, (-1, height * width * (channels // numbers), numbers))
