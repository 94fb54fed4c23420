"""Classes of the pixels from one level, in training only: a loss that improves the features (YOLACT, section 4)."""

import keras
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.ground_truth import instances
from keras_maskrcnn.heads.outputs import Declarations
from keras_maskrcnn.ops import canvas_masks
from keras_maskrcnn.ops.losses import binary_cross_entropy


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class SemanticLossHead(Declarations, keras.layers.Layer):
    """A 1×1 convolution to one logit for each class, independent of the others; there is no background.

    Args:
        num_classes: classes without background, K.
        weight: factor of the loss.
    """

    LOSSES = ("semantic_loss",)
    FIELDS = ("masks",)
    PER_CLASS = ("logits",)

    def __init__(self, num_classes, weight=1.0, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.weight = num_classes, weight

    def build(self, input_shape):
        """Create the layer for a level of `input_shape` (…, C)."""
        self.logits = keras.layers.Conv2D(self.num_classes, 1, name="logits", dtype=self.dtype_policy)
        self.logits.build((None, None, None, input_shape[-1]))

    def call(self, level):
        """The level `[B, H, W, C]` to logits float32 `[B, H, W, K]`."""
        return ops.cast(self.logits(level), "float32")

    def losses(self, logits, truth, canvas):
        """Binary cross entropies: their sum over the classes, averaged over cells and images.

        A cell has a class if an object of that class covers more than half of it; crowd regions do not count.

        Args:
            logits: float32 `[B, H, W, K]`.
            truth: dict of ground truth.
            canvas: (height, width) of the input.

        Returns:
            dict of scalars.
        """
        size = ops.shape(logits)[1:3]
        masks = canvas_masks.targets(truth["masks"], truth["boxes"], canvas, size)
        classes = ops.one_hot(ops.where(instances(truth), truth["labels"] - 1, -1), self.num_classes, dtype="float32")
        flat = ops.reshape(masks, (-1, masks.shape[1], size[0] * size[1]))
        present = ops.cast(ops.matmul(ops.transpose(flat, (0, 2, 1)), classes) > 0, "float32")
        error = binary_cross_entropy(logits, ops.reshape(present, (-1, *size, self.num_classes)))
        error = ops.sum(error, axis=-1)
        return {"semantic_loss": self.weight * replicas.global_mean(error, ops.ones_like(error, dtype="bool"))}

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "weight": self.weight}
