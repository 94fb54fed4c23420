"""Keypoint head: a heat map of each region for each keypoint (Mask R-CNN, section 5), as in torchvision."""

import dataclasses
import math
import typing

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.data.coco_keypoints import PERSON
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.heads.region_head import ObjectHead
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.ops.keypoints import decode, heatmap_targets
from keras_maskrcnn.ops.losses import softmax_cross_entropy
from keras_maskrcnn.ops.maps import enlarge
from keras_maskrcnn.options import Options
from keras_maskrcnn.weights import rows as published

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class KeypointStage(Options):
    """Layers of the keypoint head.

    Attributes:
        pool: bins per side of RoIAlign; heat maps have four times as many cells.
        width: channels of the convolutions.
        depth: number of 3×3 convolutions.
        norm: normalisation after each of them, see `layers.norm.norm`.
    """

    RANGES: typing.ClassVar = {"pool": (1, math.inf), "width": (1, math.inf), "depth": (0, math.inf)}

    pool: int = 14
    width: int = 512
    depth: int = 8
    norm: str | None = None


# Layer ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class KeypointHead(ObjectHead):
    """Convolutions, a 4×4 deconvolution to twice the size, bilinear interpolation to four times the size.

    The loss is a softmax over the m² cells of each heat map, averaged over the keypoints that are labelled and inside
    their region. The target is the cell that holds the keypoint. Heat maps do not depend on the class of the object.

    The ground truth `keypoints` float32 `[B, N, K, 3]` holds x, y in pixels of the input and visibility
    (`data.Points`). Outputs are `keypoints` float32 `[B, D, K, 3]`, x, y and 1 (torchvision's visibility of every
    prediction), and `keypoint_scores` float32 `[B, D, K]`, the logits at these places.

    Args:
        num_keypoints: keypoints per object, K.
        stage: `KeypointStage`, or a dict of its fields.
        names: names of the keypoints, such as "left_eye", for drawings and COCO files; None takes those of COCO's
            persons for 17 keypoints, and no names for another number.
        **kwargs: passed on to `keras.layers.Layer`.

    Raises:
        ValueError: if `num_keypoints` is below 1 or differs from the number of names.
    """

    LOSSES = ("keypoint_loss",)
    FIELDS = ("keypoints",)
    OUTPUTS = (
        Output("keypoints", "points", exported="detection_keypoints"),
        Output("keypoint_scores", exported="detection_keypoint_scores"),
    )

    def __init__(self, num_keypoints=17, stage=None, names=None, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(num_keypoints, int | np.integer) or num_keypoints < 1:
            raise ValueError(f"num_keypoints={num_keypoints!r} must be a whole number of at least 1")
        if names is not None and len(names) != num_keypoints:
            raise ValueError(f"{len(names)} names for num_keypoints={num_keypoints}")
        self.num_keypoints = int(num_keypoints)
        self.stage = KeypointStage.of(stage)
        self.names = PERSON if names is None and num_keypoints == len(PERSON) else names and tuple(names)
        self.pool = self.stage.pool
        self.OUTPUTS = tuple(dataclasses.replace(output, names=self.names) for output in type(self).OUTPUTS)

    def build(self, input_shape):
        """Create the layers for crops of `input_shape` (N, P, P, C)."""
        policy = {"dtype": self.dtype_policy}
        self.stack = ConvStack(self.stage.depth, self.stage.width, self.stage.norm, name="stack", **policy)
        self.deconvolution = keras.layers.Conv2DTranspose(
            self.num_keypoints,
            4,
            strides=2,
            padding="same",
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            name="deconvolution",
            **policy,
        )
        self.stack.build((None, *input_shape[1:]))
        self.deconvolution.build(self.stack.compute_output_shape((None, *input_shape[1:])))

    @property
    def convs(self):
        """The 3×3 convolutions."""
        return self.stack.convs

    @property
    def norms(self):
        """Their normalisations; empty without."""
        return self.stack.norms

    def call(self, crops, labels, training=False, valid=None):
        """Predict the heat maps of each region.

        Args:
            crops: `[N, P, P, C]`.
            labels: not used.
            training: whether batch normalisation uses the batch's statistics.
            valid: bool `[N]`, the regions that these statistics are computed from; None for all.

        Returns:
            float32 `[N, 4P, 4P, K]` logits.
        """
        hidden = self.stack(crops, training=training, valid=valid)
        maps = self.deconvolution(ops.cast(hidden, self.compute_dtype))
        return enlarge(ops.cast(maps, "float32"), 2)

    def row_losses(self, predictions, rows, truth):
        """Cross entropy over the cells of each heat map, averaged over the valid keypoints of positive regions."""
        points = ops.cast(rows.matched(truth["keypoints"]), "float32")
        cell, valid = heatmap_targets(points, rows.boxes, 4 * self.pool)
        logits = ops.reshape(ops.transpose(predictions, (0, 3, 1, 2)), (-1, self.num_keypoints, (4 * self.pool) ** 2))
        error = softmax_cross_entropy(logits, ops.stop_gradient(cell))
        return {"keypoint_loss": replicas.global_mean(error, ops.logical_and(valid, rows.valid[:, None]))}

    def row_outputs(self, predictions, rows):
        """Positions in pixels of the input, and logits."""
        places, scores = decode(predictions, rows.boxes)
        return {
            "keypoints": ops.concatenate([places, ops.ones_like(places[..., :1])], axis=-1),
            "keypoint_scores": scores,
        }

    def check(self, inputs):
        """Raises a ValueError if the data has another number of keypoints."""
        count = inputs["keypoints"].shape[2]
        if count != self.num_keypoints:
            raise ValueError(f"num_keypoints={self.num_keypoints}, but objects of the data have {count} keypoints")

    def published(self, source, names):
        """Rows of published arrays: torchvision's, if the file has a keypoint head."""
        if source == "torchvision" and any(name.startswith("roi_heads.keypoint") for name in names):
            yield from _torchvision(self)

    def get_config(self):
        """Constructor arguments."""
        arguments = {"num_keypoints": self.num_keypoints, "stage": self.stage.asdict(), "names": self.names}
        return {**super().get_config(), **arguments}


# Published arrays -------------------------------------------------------------------------------------------------


def _torchvision(head):
    # ReLUs count in the numbers of the sequence, and so would norms, which torchvision's head does not have.
    for i, conv in enumerate(head.convs):
        name = f"roi_heads.keypoint_head.{2 * i}"
        yield from published.torch_layer(conv, f"{head.name}.convs.{i}", name, published.torch_conv)
    theirs = "roi_heads.keypoint_predictor.kps_score_lowres"
    # `[in, out, y, x]` to `[y, x, out, in]`, which is the transposition of a convolution's kernel.
    kernel = published.torch_conv
    yield from published.torch_layer(head.deconvolution, f"{head.name}.deconvolution", theirs, kernel)
