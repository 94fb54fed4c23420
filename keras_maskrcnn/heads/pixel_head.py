"""Base of the heads that classify pixels: the loss, the outputs and the checks of a label map."""

import dataclasses
import math
import typing

from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.map_head import MapHead
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.ops.losses import softmax_cross_entropy
from keras_maskrcnn.ops.maps import enlarge
from keras_maskrcnn.options import Options


@dataclasses.dataclass(frozen=True)
class PixelStage(Options):
    """Loss of a head that classifies pixels.

    Attributes:
        ignore: label of the pixels that no loss is computed on, see `data.LabelMap`.
        loss_weight: factor of the loss.

    Raises:
        ValueError: if the factor is negative.
    """

    RANGES: typing.ClassVar = {"loss_weight": (0, math.inf)}

    ignore: int = 255
    loss_weight: float = 1.0


class PixelHead(MapHead):
    """A head whose predictions are logits of the classes of pixels, class 0 first.

    A subclass implements `build` and `call`, see `MapHead`; `call` returns float32 `[B, h, w, num_classes + 1]`.

    Args:
        num_classes: classes without class 0.
        stage: instance of `STAGE`, or a dict of its fields.

    Attributes:
        STAGE: class of the options, derived from `PixelStage`.

    Raises:
        ValueError: for `num_classes` that is not in 1…254, or is the label that is ignored.
    """

    LOSSES = ("semantic_loss",)
    FIELDS = ("semantic",)
    OUTPUTS: tuple[Output, ...] = (Output("semantic", "map", exported="semantic_predictions"),)
    STAGE = PixelStage

    def __init__(self, num_classes, stage=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.stage = num_classes, self.STAGE.of(stage)
        if not 1 <= num_classes <= 254 or 0 <= self.stage.ignore <= num_classes:
            reason = f"must be 1 to 254, and the labels 0 to num_classes must not hold ignore={self.stage.ignore}"
            raise ValueError(f"num_classes={num_classes!r} of a semantic head {reason}")

    def map_losses(self, predictions, truth):
        """Cross entropy of each labelled pixel of the canvas, averaged over these pixels.

        Logits are enlarged bilinearly to the canvas (Long et al. 2015, section 3.3; Panoptic FPN, section 3).
        """
        labels = ops.cast(truth["semantic"], "int32")
        labelled = labels != self.stage.ignore
        logits = enlarge(predictions, self.stride)
        error = softmax_cross_entropy(logits, ops.where(labelled, labels, 0))
        (name,) = self.LOSSES
        return {name: self.stage.loss_weight * replicas.global_mean(error, labelled)}

    def map_outputs(self, predictions):
        """The logits."""
        return {"semantic": predictions}

    def check(self, inputs):
        """Raises a ValueError if the map is not one of the whole canvas."""
        given, canvas = inputs["semantic"].shape, inputs["images"].shape[:3]
        if tuple(given) != tuple(canvas):
            raise ValueError(f"semantic has the shape {tuple(given)}; it must be that of the canvas, {tuple(canvas)}")

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "stage": self.stage.asdict()}
