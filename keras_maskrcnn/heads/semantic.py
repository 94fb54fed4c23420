"""Semantic head: the class of each pixel from all levels of the pyramid (Panoptic FPN, Kirillov et al. 2019)."""

import dataclasses
import math

import keras
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.map_head import MapHead
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.ops.losses import softmax_cross_entropy
from keras_maskrcnn.ops.maps import enlarge
from keras_maskrcnn.options import Options
from keras_maskrcnn.weights import rows as published

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SemanticStage(Options):
    """Layers and loss of the semantic head.

    Attributes:
        width: channels of the convolutions.
        norm: normalisation after each of them, see `layers.norm.norm`.
        ignore: label of the pixels that no loss is computed on, see `data.LabelMap`.
        loss_weight: factor of the loss; λ_s of the paper, section 3.

    Raises:
        ValueError: if the factor is negative.
    """

    width: int = 128
    norm: str | None = "group"
    ignore: int = 255
    loss_weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not self.loss_weight >= 0:
            raise ValueError(f"loss_weight={self.loss_weight!r} must be 0 or more")


# Layers -----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class SemanticHead(MapHead):
    """Each level by 3×3 convolutions and bilinear ×2 to a quarter of the image, their sum, and a 1×1 convolution.

    A level of stride 4·2^n has n pairs of convolution and enlargement, at least one convolution (Panoptic FPN, figure
    3). Logits are enlarged to the canvas in the loss, and to the pixels of the image in detections.

    Args:
        num_classes: classes of pixels ("stuff") without class 0, which is everything else: objects ("things") in
            panoptic segmentation, as in the paper, or background.
        stage: `SemanticStage`, or a dict of its fields.

    Raises:
        ValueError: for `num_classes` that is not in 1…254, or is the label that is ignored.
    """

    LOSSES = ("semantic_loss",)
    FIELDS = ("semantic",)
    OUTPUTS = (Output("semantic", "map", exported="semantic_predictions"),)

    def __init__(self, num_classes, stage=None, name="semantic_head", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes, self.stage = num_classes, SemanticStage.of(stage)
        if not 1 <= num_classes <= 254 or 0 <= self.stage.ignore <= num_classes:
            reason = f"must be 1 to 254, and the labels 0 to num_classes must not hold ignore={self.stage.ignore}"
            raise ValueError(f"num_classes={num_classes!r} of a semantic head {reason}")

    def build(self, input_shape):
        """Create the layers for a list of level shapes (None, H, W, C)."""
        width, policy = self.stage.width, {"dtype": self.dtype_policy}
        self.stacks = {}
        for stride, shape in zip(self.strides, input_shape, strict=True):
            for i, name in enumerate(self._names(stride)):
                self.stacks[name] = ConvStack(1, width, self.stage.norm, name=name, **policy)
                self.stacks[name].build((*shape[:-1], width) if i else shape)
        self.logits = keras.layers.Conv2D(
            self.num_classes + 1, 1, kernel_initializer="he_normal", name="logits", **policy
        )
        self.logits.build((None, None, None, width))

    def _names(self, stride):
        """Names of the convolutions of a level: "p4_0", "p4_1" for stride 16."""
        return [f"p{round(math.log2(stride))}_{i}" for i in range(max(1, round(math.log2(stride / self.stride))))]

    def call(self, levels, training=False):
        """Predict logits at a quarter of the resolution.

        Args:
            levels: list of `[B, H_l, W_l, C]`, finest first.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            float32 `[B, H / stride, W / stride, num_classes + 1]`.
        """
        total = 0
        for stride, level in zip(self.strides, levels, strict=True):
            for name in self._names(stride):
                level = enlarge(self.stacks[name](level, training=training), 2 if stride > self.stride else 1)
            total = total + level
        return ops.cast(self.logits(total), "float32")

    def map_losses(self, predictions, truth):
        """Cross entropy of each labelled pixel of the canvas, averaged over these pixels (section 3)."""
        labels = ops.cast(truth["semantic"], "int32")
        labelled = labels != self.stage.ignore
        logits = enlarge(predictions, self.stride)
        error = softmax_cross_entropy(logits, ops.where(labelled, labels, 0))
        return {"semantic_loss": self.stage.loss_weight * replicas.global_mean(error, labelled)}

    def map_outputs(self, predictions):
        """The logits."""
        return {"semantic": predictions}

    def check(self, inputs):
        """Raises a ValueError if the map is not one of the whole canvas."""
        given, canvas = inputs["semantic"].shape, inputs["images"].shape[:3]
        if tuple(given) != tuple(canvas):
            raise ValueError(f"semantic has the shape {tuple(given)}; it must be that of the canvas, {tuple(canvas)}")

    def published(self, source, names):
        """Rows of detectron2's `sem_seg_head`; none for another source or a file without it."""
        prefix = "sem_seg_head."
        return _detectron2(self, prefix) if any(name.startswith(prefix) for name in names) else ()

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "stage": self.stage.asdict()}


# Published arrays -------------------------------------------------------------------------------------------------


def _detectron2(head, prefix):
    # In a level's sequence each convolution is followed by its enlargement, which has no weights.
    for name, stack in head.stacks.items():
        level, i = name.split("_")
        ours, theirs = f"{head.name}.stacks.{name}", f"{prefix}{level}.{2 * int(i)}"
        yield from published.torch_layer(stack.convs[0], f"{ours}.conv", theirs, published.torch_conv)
        yield from published.torch_norm(stack.norms[0] if stack.norms else None, f"{ours}.norm", f"{theirs}.norm")
    yield from published.torch_layer(head.logits, f"{head.name}.logits", f"{prefix}predictor", published.torch_conv)
