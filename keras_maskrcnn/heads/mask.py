"""Mask head: a small network on each region (Mask R-CNN, section 3, figure 4 right, and table 2)."""

import dataclasses
import math
import typing

import keras
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.heads.region_head import ObjectHead, flat
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.ops.losses import binary_cross_entropy
from keras_maskrcnn.ops.masks import mask_targets, sampled_mask_targets
from keras_maskrcnn.options import Options, check_choice
from keras_maskrcnn.weights import rows as published

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MaskStage(Options):
    """Layers, loss and targets of the mask head; the choices are those of table 2 of the paper, its own by default.

    Attributes:
        pool: bins per side of RoIAlign; masks have twice as many cells.
        width: channels of the convolutions, or units of the dense layers (paper: 256 and 1024).
        depth: number of 3×3 convolutions of the FCN.
        norm: normalisation after each of them, see `layers.norm.norm`.
        targets: "area", the share of each cell that the instance covers, from masks cropped to their boxes; or
            "roi_align", torchvision's bilinear samples of masks of the whole canvas
            (`data.batches(mask_size="canvas")`), for comparisons.
        loss: "sigmoid", a binary loss of the mask of the region's class, the masks of other classes being left alone;
            or "softmax" (table 2b), a multinomial loss per cell over background and all classes. The target is then
            the region's class where the instance is and background elsewhere, also where another object is; the
            predicted mask is the probability of the region's class.
        class_agnostic: one mask for all classes instead of one per class (section 4.2). The last layer does not depend
            on the number of classes then.
        kind: "fcn", convolutions, a deconvolution and a 1×1 convolution; or "mlp" (table 2e), dense layers from all
            bins of the crop to all cells of the masks.
        hidden: number of dense layers before the last one of the MLP; table 2e has 2 and 3.

    Raises:
        ValueError: for other `targets`, `loss` or `kind`.
    """

    RANGES: typing.ClassVar = {
        "pool": (1, math.inf),
        "width": (1, math.inf),
        "depth": (0, math.inf),
        "hidden": (0, math.inf),
    }

    pool: int = 14
    width: int = 256
    depth: int = 4
    norm: str | None = None
    targets: str = "area"
    loss: str = "sigmoid"
    class_agnostic: bool = False
    kind: str = "fcn"
    hidden: int = 2

    def __post_init__(self):
        super().__post_init__()
        check_choice("targets", self.targets, ("area", "roi_align"))
        check_choice("loss", self.loss, ("sigmoid", "softmax"))
        check_choice("kind", self.kind, ("fcn", "mlp"))


# Layers -----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class Deconvolution2x(keras.layers.Layer):
    """Transposed 2×2 convolution of stride 2: each cell becomes four.

    With the stride equal to the kernel size outputs do not overlap, so this is one matrix product to four times the
    channels, rearranged as 2×2 blocks: the same numbers as the general transposed convolution, and faster.

    Args:
        filters: output channels.
    """

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        """Create the kernel `[C, 2, 2, filters]` and the bias `[filters]`."""
        # He scaling counts the inputs of one output cell, which are the C values of one input cell.
        normal = keras.initializers.RandomNormal(stddev=(2.0 / input_shape[-1]) ** 0.5)
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 2, 2, self.filters), initializer=normal)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs):
        """Enlarge `[N, H, W, C]` to `[N, 2H, 2W, filters]`."""
        return unfold_blocks(self.blocks(inputs))

    def blocks(self, inputs):
        """The four output cells of each input cell on an axis of their own: `[N, H, W, 4, filters]`."""
        _, height, width, channels = inputs.shape
        kernel = ops.reshape(self.kernel, (1, 1, channels, 4 * self.filters))
        bias = ops.tile(ops.convert_to_tensor(self.bias), [4])
        return ops.reshape(ops.conv(inputs, kernel) + bias, (-1, height, width, 4, self.filters))

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "filters": self.filters}


def unfold_blocks(blocks):
    """Four cells on an axis of their own to 2×2 blocks: `[N, H, W, 4, C]` to `[N, 2H, 2W, C]`."""
    _, height, width, _, channels = blocks.shape
    grid = ops.transpose(ops.reshape(blocks, (-1, height, width, 2, 2, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(grid, (-1, 2 * height, 2 * width, channels))


def of_class(values, labels):
    """Values of each region's class: `[N, H, W, C]` and int32 `[N]` to `[N, H, W]`."""
    chosen = ops.arange(values.shape[-1], dtype="int32") == ops.cast(labels, "int32")[:, None, None, None]
    return ops.sum(ops.where(chosen, values, 0.0), axis=-1)


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class MaskHead(ObjectHead):
    """Convolutions, one deconvolution to twice the size, and one mask per class; or what `MaskStage` says instead.

    Args:
        num_classes: classes without background. The last layer has `num_classes + 1` columns, or 2 if it is
            class-agnostic; column 0 is background, which only the softmax trains.
        stage: `MaskStage`, or a dict of its fields.
    """

    LOSSES = ("mask_loss",)
    FIELDS = ("masks",)
    OUTPUTS = (Output("masks", "box_masks", exported="detection_masks"),)

    def __init__(self, num_classes, stage=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.stage = MaskStage.of(stage)
        self.pool = self.stage.pool
        self.columns = 2 if self.stage.class_agnostic else num_classes + 1
        self.PER_CLASS = () if self.stage.class_agnostic else ("logits",)

    def build(self, input_shape):
        """Create the layers for crops of `input_shape` (N, P, P, C)."""
        (self._build_mlp if self.stage.kind == "mlp" else self._build_fcn)((None, *input_shape[1:]))

    def _build_fcn(self, crops):
        width, policy = self.stage.width, {"dtype": self.dtype_policy}
        self.stack = ConvStack(self.stage.depth, width, self.stage.norm, name="stack", **policy)
        self.deconvolution = Deconvolution2x(width, name="deconvolution", **policy)
        self.logits = keras.layers.Conv2D(self.columns, 1, kernel_initializer="he_normal", name="logits", **policy)
        self.stack.build(crops)
        self.deconvolution.build(self.stack.compute_output_shape(crops))
        self.logits.build((None, None, None, width))

    def _build_mlp(self, crops):
        if self.stage.norm:
            raise ValueError(f"mask_stage norm={self.stage.norm!r}: kind='mlp' has no convolutions to normalise")
        dense = {"kernel_initializer": "he_normal", "dtype": self.dtype_policy}
        self.hidden = [
            keras.layers.Dense(self.stage.width, activation="relu", name=f"fc{i + 1}", **dense)
            for i in range(self.stage.hidden)
        ]
        self.logits = keras.layers.Dense(4 * crops[1] * crops[2] * self.columns, name="logits", **dense)
        units = crops[1] * crops[2] * crops[3]
        for layer in self.hidden:
            layer.build((None, units))
            units = self.stage.width
        self.logits.build((None, units))

    @property
    def convs(self):
        """The 3×3 convolutions of the FCN."""
        return self.stack.convs

    @property
    def norms(self):
        """Their normalisations; empty without."""
        return self.stack.norms

    def call(self, crops, labels, training=False, valid=None):
        """Predict the mask of each region for its own class.

        Args:
            crops: `[N, P, P, C]`, N ≥ 1 (TensorFlow's 1×1 convolution fails on an empty batch on the CPU).
            labels: int32 `[N]`, 0…K, the class of each region.
            training: whether batch normalisation uses the batch's statistics.
            valid: bool `[N]`, the regions that these statistics are computed from; None for all.

        Returns:
            float32 `[N, 2P, 2P]` logits; with the softmax `[N, 2P, 2P, 2]`, logarithms of the probabilities of
            background and of the region's class.
        """
        column = ops.minimum(labels, 1) if self.stage.class_agnostic else labels
        if self.stage.kind == "mlp":
            logits = self._dense(crops)
        else:
            hidden = self.stack(crops, training=training, valid=valid)
            blocks = ops.relu(self.deconvolution.blocks(ops.cast(hidden, self.compute_dtype)))
            if self.stage.loss == "sigmoid":
                return ops.cast(unfold_blocks(self._own_class(blocks, column))[..., 0], "float32")
            logits = unfold_blocks(self._every_class(blocks))
        logits = ops.cast(logits, "float32")
        if self.stage.loss == "sigmoid":
            return of_class(logits, column)
        logarithms = ops.log_softmax(logits, axis=-1)
        return ops.stack([logarithms[..., 0], of_class(logarithms, column)], axis=-1)

    def _own_class(self, blocks, labels):
        """The last layer, for each region's class only: `[N, P, P, 4, C]` to `[N, P, P, 4, 1]`."""
        size = blocks.shape[1]
        kernel, bias = (
            ops.cast(ops.take(w, labels, axis=-1), blocks.dtype) for w in (self.logits.kernel, self.logits.bias)
        )
        column = ops.transpose(kernel[0, 0])[..., None]
        logits = ops.matmul(ops.reshape(blocks, (-1, 4 * size * size, self.stage.width)), column)
        return ops.reshape(logits + bias[:, None, None], (-1, size, size, 4, 1))

    def _every_class(self, blocks):
        """The last layer, for all classes: `[N, P, P, 4, C]` to `[N, P, P, 4, K + 1]`."""
        kernel, bias = (ops.cast(w, blocks.dtype) for w in (self.logits.kernel, self.logits.bias))
        return ops.matmul(blocks, kernel[0, 0]) + bias

    def _dense(self, crops):
        """The MLP: `[N, P, P, C]` to `[N, 2P, 2P, K + 1]`.

        All classes are computed: the columns of each region's class would be a copy of up to `width` · (2P)² weights
        for each region.
        """
        _, height, width, channels = crops.shape
        hidden = ops.reshape(crops, (-1, height * width * channels))
        for layer in self.hidden:
            hidden = layer(hidden)
        return ops.reshape(self.logits(hidden), (-1, 2 * height, 2 * width, self.columns))

    def row_losses(self, predictions, rows, truth):
        """Cross entropy, averaged over the cells of positive regions (section 3); see `MaskStage.loss`."""
        target = ops.stop_gradient(self.targets(rows, truth))
        if self.stage.loss == "softmax":
            error = -(target * predictions[..., 1] + (1.0 - target) * predictions[..., 0])
        else:
            error = binary_cross_entropy(predictions, target)
        return {"mask_loss": replicas.global_mean(error, rows.valid[:, None, None])}

    def targets(self, rows, truth):
        """Mask targets on the head's output grid: float32 `[R, 2P, 2P]` in [0, 1], see `MaskStage.targets`."""
        size = 2 * self.pool
        if self.stage.targets == "roi_align":
            return sampled_mask_targets(flat(truth["masks"]), rows.instance, rows.boxes, size)
        return mask_targets(rows.matched(truth["masks"]), rows.matched(truth["boxes"]), rows.boxes, size)

    def row_outputs(self, predictions, rows):
        """Mask probabilities inside the boxes."""
        softmax = self.stage.loss == "softmax"
        return {"masks": ops.exp(predictions[..., 1]) if softmax else ops.sigmoid(predictions)}

    def check(self, inputs):
        """Raises a ValueError if the masks among the inputs are not of the form that the targets need."""
        if self.stage.targets == "roi_align" and inputs["masks"].shape[2:] != inputs["images"].shape[1:3]:
            raise ValueError(
                'mask_stage targets="roi_align" needs masks of the whole canvas: data.batches(mask_size="canvas")'
            )

    def check_prepared(self, prepare):
        """Raises a ValueError if the masks of `data.batches` are not of the form that the targets need.

        On a square canvas, masks of the canvas have the shape of masks inside boxes.
        """
        if self.stage.targets == "area" and prepare.mask_size == "canvas":
            raise ValueError(
                'data.batches(mask_size="canvas") is for mask_stage targets="roi_align"; "area" needs a number of cells'
            )

    def published(self, source, names):
        """Rows of published arrays, see `PUBLISHED` below; none for an MLP, and for a file without a mask head."""
        prefix, name_map = PUBLISHED[source]
        present = self.stage.kind == "fcn" and any(name.startswith(prefix) for name in names)
        return name_map(self, names) if present else ()

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "stage": self.stage.asdict()}


# Published arrays -------------------------------------------------------------------------------------------------


def _torchvision(head, names):
    theirs, predictor = "roi_heads.mask_head", "roi_heads.mask_predictor"
    for i, conv in enumerate(head.convs):
        name = published.present(names, f"{theirs}.{i}.0", f"{theirs}.mask_fcn{i + 1}")
        yield from published.torch_layer(conv, f"mask_head.convs.{i}", name, published.torch_conv)
    for i, norm in enumerate(head.norms):
        yield from published.torch_norm(norm, f"mask_head.norms.{i}", f"{theirs}.{i}.1")
    kernels = {"deconvolution": published.torch_deconvolution, "logits": published.torch_conv}
    for ours, name in (("deconvolution", "conv5_mask"), ("logits", "mask_fcn_logits")):
        layer = getattr(head, ours)
        yield from published.torch_layer(layer, f"mask_head.{ours}", f"{predictor}.{name}", kernels[ours])


def _detectron2(head, names):
    theirs, classes = "roi_heads.mask_head", published.with_background(1)
    yield from published.detectron2_convs(head, "mask_head", f"{theirs}.mask_fcn")
    yield from published.torch_layer(
        head.deconvolution, "mask_head.deconvolution", f"{theirs}.deconv", published.torch_deconvolution
    )
    kernel = published.then(published.torch_conv, classes)
    yield from published.torch_layer(head.logits, "mask_head.logits", f"{theirs}.predictor", kernel, bias=classes)


def _matterport(head, names):
    for i, conv in enumerate(head.convs):
        theirs = f"mrcnn_mask_conv{i + 1}", f"mrcnn_mask_bn{i + 1}"
        yield from published.folded(conv, f"mask_head.convs.{i}", *theirs, published.folded_kernel)
    kernel = published.keras_deconvolution
    yield from published.keras_layer(head.deconvolution, "mask_head.deconvolution", "mrcnn_mask_deconv", kernel)
    yield from published.keras_layer(head.logits, "mask_head.logits", "mrcnn_mask")


PUBLISHED = {
    "torchvision": ("roi_heads.mask", _torchvision),
    "detectron2": ("roi_heads.mask_head.", _detectron2),
    "matterport": ("mrcnn_mask", _matterport),
}
