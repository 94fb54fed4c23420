"""Semantic head: the class of each pixel from all levels of the pyramid (Panoptic FPN, Kirillov et al. 2019)."""

import dataclasses
import math
import typing

import keras
from keras import ops

from keras_maskrcnn.heads.pixel_head import PixelHead, PixelStage
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.ops.maps import enlarge
from keras_maskrcnn.weights import rows as published

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SemanticStage(PixelStage):
    """Layers and loss of the semantic head; `loss_weight` is λ_s of the paper, section 3.

    Attributes:
        width: channels of the convolutions.
        norm: normalisation after each of them, see `layers.norm.norm`.
    """

    RANGES: typing.ClassVar = {**PixelStage.RANGES, "width": (1, math.inf)}

    width: int = 128
    norm: str | None = "group"


# Layers -----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class SemanticHead(PixelHead):
    """Each level by 3×3 convolutions and bilinear ×2 to a quarter of the image, their sum, and a 1×1 convolution.

    A level of stride 4·2^n has n pairs of convolution and enlargement, at least one convolution (Panoptic FPN, figure
    3). Logits are enlarged to the canvas in the loss, and to the pixels of the image in detections.

    Args:
        num_classes: classes of pixels ("stuff") without class 0, which is everything else: objects ("things") in
            panoptic segmentation, as in the paper, or background.
        stage: `SemanticStage`, or a dict of its fields.
        names: names of the classes from 1 on, such as "sky", for drawings and COCO files; None for their numbers.

    Raises:
        ValueError: for `num_classes` that is not in 1…254, is the label that is ignored, or differs from the number of
            names.
    """

    STAGE = SemanticStage

    def __init__(self, num_classes, stage=None, names=None, name="semantic_head", **kwargs):
        super().__init__(num_classes, stage, name=name, **kwargs)
        if names is not None and len(names) != num_classes:
            raise ValueError(f"{len(names)} names for num_classes={num_classes} of a semantic head")
        self.names = names and tuple(names)
        names = self.names or tuple(map(str, range(1, num_classes + 1)))
        self.OUTPUTS = tuple(dataclasses.replace(output, names=names) for output in type(self).OUTPUTS)

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

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "names": self.names}

    def published(self, source, names):
        """Rows of detectron2's `sem_seg_head`; none for another source or a file without it."""
        prefix = "sem_seg_head."
        return _detectron2(self, prefix) if any(name.startswith(prefix) for name in names) else ()


# Published arrays -------------------------------------------------------------------------------------------------


def _detectron2(head, prefix):
    # In a level's sequence each convolution is followed by its enlargement, which has no weights.
    for name, stack in head.stacks.items():
        level, i = name.split("_")
        ours, theirs = f"{head.name}.stacks.{name}", f"{prefix}{level}.{2 * int(i)}"
        yield from published.torch_layer(stack.convs[0], f"{ours}.conv", theirs, published.torch_conv)
        yield from published.torch_norm(stack.norms[0] if stack.norms else None, f"{ours}.norm", f"{theirs}.norm")
    yield from published.torch_layer(head.logits, f"{head.name}.logits", f"{prefix}predictor", published.torch_conv)
