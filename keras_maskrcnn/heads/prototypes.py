"""Prototypes: maps of the whole canvas that the coefficients of a detection are weights of (YOLACT, section 3.1)."""

import dataclasses
import math
import typing

import keras
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.outputs import Declarations, Output
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops import canvas_masks
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.ops.losses import binary_cross_entropy
from keras_maskrcnn.ops.maps import enlarge
from keras_maskrcnn.ops.matching import IGNORED, POSITIVE
from keras_maskrcnn.ops.sampling import sample
from keras_maskrcnn.options import Options

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PrototypeStage(Options):
    """Layers and loss of the prototypes.

    Attributes:
        count: number of prototypes, k.
        width: channels of the convolutions.
        depth: number of 3×3 convolutions before the enlargement; one follows it.
        weight: factor of the mask loss.
        positives: maximum number of positive anchors per image that the mask loss is computed on; of more, a random
            sample is taken, whose loss is scaled to their number.

    Raises:
        ValueError: for a value outside its range.
    """

    RANGES: typing.ClassVar = {
        "count": (1, math.inf),
        "width": (1, math.inf),
        "depth": (0, math.inf),
        "weight": (0, math.inf),
        "positives": (1, math.inf),
    }

    count: int = 32
    width: int = 256
    depth: int = 3
    weight: float = 6.125
    positives: int = 100


# Layer ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class PrototypeHead(Declarations, keras.layers.Layer):
    """Protonet: 3×3 convolutions, bilinear ×2, one more, and a 1×1 convolution to the prototypes, each with a ReLU.

    Args:
        stage: `PrototypeStage`, or a dict of its fields.
    """

    LOSSES = ("mask_loss",)
    FIELDS = ("masks",)
    OUTPUTS = (Output("masks", "canvas_masks", exported="detection_masks"),)

    def __init__(self, stage=None, **kwargs):
        super().__init__(**kwargs)
        self.stage = PrototypeStage.of(stage)

    def build(self, input_shape):
        """Create the layers for a level of `input_shape` (…, C)."""
        stage, policy = self.stage, {"dtype": self.dtype_policy}
        self.stack = ConvStack(stage.depth, stage.width, name="stack", **policy)
        self.enlarged = ConvStack(1, stage.width, name="enlarged", **policy)
        self.prototypes = keras.layers.Conv2D(
            stage.count, 1, activation="relu", kernel_initializer="he_normal", name="prototypes", **policy
        )
        shape = (None, None, None, input_shape[-1])
        for layer in (self.stack, self.enlarged, self.prototypes):
            layer.build(shape)
            shape = (None, None, None, stage.width)

    def call(self, level):
        """Compute the prototypes: the finest level `[B, H, W, C]` to float32 `[B, 2H, 2W, k]`, not negative."""
        return ops.cast(self.prototypes(self.enlarged(enlarge(self.stack(level), 2))), "float32")

    def losses(self, prototypes, coefficients, assigned, truth, canvas, seed):
        """Mask loss over the positive anchors (section 3.4), divided by their number.

        The loss of an anchor is the sum of the cross entropies inside the box of its object, divided by the area of
        that box in cells, which is at least 1.

        Args:
            prototypes: float32 `[B, h, w, k]`.
            coefficients: float32 `[B, A, k]`.
            assigned: `anchor_head.Assigned`.
            truth: dict of ground truth.
            canvas: (height, width) of the input.
            seed: `keras.random.SeedGenerator`.

        Returns:
            dict of scalars.
        """
        positive, size = assigned.role == POSITIVE, ops.shape(prototypes)[1:3]
        index, drawn = sample(ops.where(positive, POSITIVE, IGNORED), self.stage.positives, 1.0, seed, replicas.uniform)
        row = take_rows(assigned.matched, index)
        boxes = canvas_masks.in_cells(take_rows(truth["boxes"], row), canvas, size)
        target = take_rows(canvas_masks.targets(truth["masks"], truth["boxes"], canvas, size), row)
        logits = canvas_masks.assembled(prototypes, take_rows(coefficients, index))
        error = ops.where(canvas_masks.inside(boxes, size), binary_cross_entropy(logits, target), 0.0)
        error = ops.sum(error, axis=(2, 3)) / ops.maximum(box_ops.area(boxes), 1.0)
        present, taken = (ops.sum(ops.cast(mask, "float32"), axis=1) for mask in (positive, drawn))
        error = error * (present / ops.maximum(taken, 1.0))[:, None]
        return {"mask_loss": self.stage.weight * replicas.global_mean(error, drawn, ops.sum(present))}

    def predict(self, prototypes, coefficients, found, canvas):
        """Masks of detections.

        Args:
            prototypes: float32 `[B, h, w, k]`.
            coefficients: float32 `[B, D, k]`.
            found: dict with `boxes` float32 `[B, D, 4]` and `valid` bool `[B, D]`.
            canvas: (height, width) of the input.

        Returns:
            dict of `masks` float32 `[B, D, h, w]`: probabilities, 0 outside the boxes and in empty slots.
        """
        size = ops.shape(prototypes)[1:3]
        inside = canvas_masks.inside(canvas_masks.in_cells(found["boxes"], canvas, size), size)
        inside = ops.logical_and(inside, found["valid"][..., None, None])
        masks = ops.sigmoid(canvas_masks.assembled(prototypes, coefficients))
        return {"masks": ops.where(inside, masks, 0.0)}

    def check_prepared(self, prepare):
        """Raises a ValueError if masks inside boxes have the size of the canvas, and would be taken for masks of it."""
        size = prepare.mask_size
        if tuple(prepare.image_size) == (size, size):
            raise ValueError(f'mask_size={size} is the side of the canvas: take another one, or mask_size="canvas"')

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "stage": self.stage.asdict()}
