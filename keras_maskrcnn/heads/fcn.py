"""Head of a fully convolutional network (Long et al. 2015): class scores of the levels, enlarged and fused.

The scores of the last level are enlarged step by step, and those of finer levels are added on the way ("FCN-16s",
"FCN-8s", section 4.2). With skips="concatenate" it is features that are enlarged and joined with those of the finer
levels, and classes are scored at the end (U-Net, Ronneberger et al. 2015).
"""

import dataclasses
import math
import typing

import keras
from keras import ops

from keras_maskrcnn.heads.pixel_head import PixelHead, PixelStage
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.layers.upsampling import METHODS, Upsampling
from keras_maskrcnn.options import check_choice
from keras_maskrcnn.weights import rows as published

SKIPS = ("add", "concatenate")

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FCNStage(PixelStage):
    """Layers and loss of the head of an FCN.

    Attributes:
        width: channels of the 3×3 convolutions on the last level; with skips="concatenate" half as many at each finer
            level.
        depth: number of these convolutions; 0 scores the features of the backbone directly.
        dropout: share of the features before the scores of the last level that a training step leaves out.
        norm: normalisation after each 3×3 convolution, see `layers.norm.norm`.

    Raises:
        ValueError: for a value outside its range; the dropout must be in [0, 1).
    """

    RANGES: typing.ClassVar = {**PixelStage.RANGES, "width": (1, math.inf), "depth": (0, math.inf)}

    width: int = 512
    depth: int = 1
    dropout: float = 0.1
    norm: str | None = "batch"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r} must be at least 0 and below 1")


# Layers -----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class FCNHead(PixelHead):
    """Levels of a backbone to the class scores of pixels.

    Args:
        num_classes: classes without background.
        fused: finest stride of the levels that are fused, see `models.fcn.FCN`.
        upsampling: one of `layers.upsampling.METHODS`.
        skips: "add" for scores of the levels, "concatenate" for their features.
        stage: `FCNStage`, or a dict of its fields.

    Raises:
        ValueError: for another `upsampling` or `skips`, and as `PixelHead`.
    """

    STAGE = FCNStage
    PUBLISHED = "classifier."  # in torchvision's files

    def __init__(self, num_classes, fused=8, upsampling="bilinear", skips="add", stage=None, name="fcn_head", **kwargs):
        super().__init__(num_classes, stage, name=name, **kwargs)
        check_choice("upsampling", upsampling, METHODS)
        check_choice("skips", skips, SKIPS)
        self.fused, self.upsampling, self.skips = fused, upsampling, skips

    def cell(self):
        """Pixels per cell: the loss and detections interpolate bilinearly; other methods end at single pixels.

        Without the indices of a pooling below the finest level, "max_unpool" ends there.
        """
        return self.strides[0] if self.upsampling in ("bilinear", "max_unpool") else 1

    def build(self, input_shape):
        """Create the layers for a list of level shapes (None, H, W, C), finest first."""
        stage, policy = self.stage, {"dtype": self.dtype_policy}
        widths = [max(1, stage.width >> i) for i in range(len(input_shape))][::-1]  # as fine levels of a U-Net have
        self.stack = ConvStack(stage.depth, stage.width, stage.norm, name="stack", **policy)
        self.stack.build(input_shape[-1])
        self.dropout = keras.layers.Dropout(stage.dropout, name="dropout", **policy)
        self.ups, self.merges, self.scores = {}, {}, {}
        channels = stage.width if stage.depth else input_shape[-1][-1]
        if self.skips == "add":
            self.logits, channels = self._score(channels, "logits"), self.num_classes + 1
        for i in reversed(range(len(self.strides) - 1)):
            stride = self.strides[i]
            self._up(stride, self.strides[i + 1] // stride, channels)
            if stride < self.fused:
                continue
            if self.skips == "add":
                self.scores[str(stride)] = self._score(input_shape[i][-1], f"scores{stride}")
            else:
                joined = (None, None, None, channels + input_shape[i][-1])
                channels = widths[i]
                merge = ConvStack(max(1, stage.depth), channels, stage.norm, name=f"merge{stride}", **policy)
                merge.build(joined)
                self.merges[str(stride)] = merge
        if self.skips == "concatenate":
            self.logits = self._score(channels, "logits")
        self._up(self.stride, self.strides[0] // self.stride, self.num_classes + 1)

    def _score(self, channels, name):
        layer = keras.layers.Conv2D(
            self.num_classes + 1, 1, kernel_initializer="he_normal", name=name, dtype=self.dtype_policy
        )
        layer.build((None, None, None, channels))
        return layer

    def _up(self, stride, factor, channels):
        """The up-sampling to a stride; none for the factor 1."""
        if factor > 1:
            up = Upsampling(factor, self.upsampling, name=f"up{stride}", dtype=self.dtype_policy)
            up.build((None, None, None, channels))
            self.ups[str(stride)] = up

    def call(self, levels, training=False):
        """Score the classes.

        Args:
            levels: list of `[B, H_l, W_l, C_l]`, finest first.
            training: whether batch normalisation uses the batch's statistics, and features are dropped.

        Returns:
            float32 `[B, H / stride, W / stride, num_classes + 1]`.
        """
        values = self.dropout(self.stack(levels[-1], training=training), training=training)
        if self.skips == "add":
            values = self.logits(values)
        for stride, level in list(zip(map(str, self.strides), levels, strict=True))[-2::-1]:
            values = self.ups[stride](values, level)
            if stride in self.scores:
                values = values + self.scores[stride](level)
            if stride in self.merges:
                values = self.merges[stride](ops.concatenate([values, level], axis=-1), training=training)
        if self.skips == "concatenate":
            values = self.logits(values)
        if self.strides[0] > self.stride:
            values = self.ups[str(self.stride)](values)
        return ops.cast(values, "float32")

    def per_class_layers(self):
        """The layers whose width depends on the number of classes, by name."""
        strides = list(self.ups) if self.skips == "add" else [str(self.stride)]
        ups = {f"up{s}.{conv.name}": conv for s in strides if s in self.ups for conv in self.ups[s].convs}
        return {"logits": self.logits, **{f"scores{s}": layer for s, layer in self.scores.items()}, **ups}

    def published(self, source, names):
        """Rows of torchvision's `FCNHead`; none for another source or a file without it."""
        held = source == "torchvision" and any(name.startswith(self.PUBLISHED) for name in names)
        return _torchvision(self, self.PUBLISHED) if held else ()

    def get_config(self):
        """Constructor arguments."""
        options = {"fused": self.fused, "upsampling": self.upsampling, "skips": self.skips}
        return {**super().get_config(), **options}


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class AuxiliaryHead(FCNHead):
    """A second classifier on an earlier level, in training only (Zhao et al. 2017, PSPNet, section 3.3).

    Arguments are those of `FCNHead`.
    """

    LOSSES = ("auxiliary_loss",)
    OUTPUTS = ()
    PUBLISHED = "aux_classifier."


# Published arrays -------------------------------------------------------------------------------------------------


def _torchvision(head, prefix):
    # A sequence of convolution, norm, ReLU, dropout and the scores.
    stack = head.stack
    for i, conv in enumerate(stack.convs):
        yield from published.torch_layer(conv, f"{head.name}.stack.convs.{i}", f"{prefix}{3 * i}", published.torch_conv)
    for i, norm in enumerate(stack.norms):
        yield from published.torch_norm(norm, f"{head.name}.stack.norms.{i}", f"{prefix}{3 * i + 1}")
    theirs = f"{prefix}{3 * len(stack.convs) + 1}"
    yield from published.torch_layer(head.logits, f"{head.name}.logits", theirs, published.torch_conv)
