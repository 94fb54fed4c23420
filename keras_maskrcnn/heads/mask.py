"""Mask head: a small fully convolutional network on each region (Mask R-CNN, section 3 and figure 4 right)."""

import dataclasses

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
    """Layers and targets of the mask head.

    Attributes:
        pool: bins per side of RoIAlign; masks have twice as many cells.
        width: channels of the convolutions.
        depth: number of 3×3 convolutions.
        norm: normalisation after each of them, see `layers.norm.norm`.
        targets: "area", the share of each cell that the instance covers, from masks cropped to their boxes; or
            "roi_align", torchvision's bilinear samples of masks of the whole canvas
            (`data.batches(mask_size="canvas")`), for comparisons.

    Raises:
        ValueError: for other `targets`.
    """

    pool: int = 14
    width: int = 256
    depth: int = 4
    norm: str | None = None
    targets: str = "area"

    def __post_init__(self):
        super().__post_init__()
        check_choice("targets", self.targets, ("area", "roi_align"))


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


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class MaskHead(ObjectHead):
    """Convolutions, one deconvolution to twice the size, and one mask per class.

    Args:
        num_classes: classes without background; column 0 of the output is background and is not trained.
        stage: `MaskStage`, or a dict of its fields.
    """

    LOSSES = ("mask_loss",)
    FIELDS = ("masks",)
    OUTPUTS = (Output("masks", "box_masks", exported="detection_masks"),)
    PER_CLASS = ("logits",)

    def __init__(self, num_classes, stage=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.stage = MaskStage.of(stage)
        self.pool = self.stage.pool

    def build(self, input_shape):
        """Create the layers for crops of `input_shape` (N, P, P, C)."""
        width, policy = self.stage.width, {"dtype": self.dtype_policy}
        self.stack = ConvStack(self.stage.depth, width, self.stage.norm, name="stack", **policy)
        self.deconvolution = Deconvolution2x(width, name="deconvolution", **policy)
        self.logits = keras.layers.Conv2D(
            self.num_classes + 1, 1, kernel_initializer="he_normal", name="logits", **policy
        )
        self.stack.build((None, *input_shape[1:]))
        self.deconvolution.build(self.stack.compute_output_shape((None, *input_shape[1:])))
        self.logits.build((None, None, None, width))

    @property
    def convs(self):
        """The 3×3 convolutions."""
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
            float32 `[N, 2P, 2P]` logits.
        """
        hidden = self.stack(crops, training=training, valid=valid)
        blocks = ops.relu(self.deconvolution.blocks(ops.cast(hidden, self.compute_dtype)))
        return ops.cast(unfold_blocks(self._own_class(blocks, labels))[..., 0], "float32")

    def _own_class(self, blocks, labels):
        """The last layer, for each region's class only: `[N, P, P, 4, C]` to `[N, P, P, 4, 1]`."""
        size = blocks.shape[1]
        kernel, bias = (
            ops.cast(ops.take(w, labels, axis=-1), blocks.dtype) for w in (self.logits.kernel, self.logits.bias)
        )
        column = ops.transpose(kernel[0, 0])[..., None]
        logits = ops.matmul(ops.reshape(blocks, (-1, 4 * size * size, self.stage.width)), column)
        return ops.reshape(logits + bias[:, None, None], (-1, size, size, 4, 1))

    def row_losses(self, predictions, rows, truth):
        """Binary cross entropy of the region's own class, averaged over the cells of positive regions (section 3)."""
        error = binary_cross_entropy(predictions, ops.stop_gradient(self.targets(rows, truth)))
        return {"mask_loss": replicas.global_mean(error, rows.valid[:, None, None])}

    def targets(self, rows, truth):
        """Mask targets on the head's output grid: float32 `[R, 2P, 2P]` in [0, 1], see `MaskStage.targets`."""
        size = 2 * self.pool
        if self.stage.targets == "roi_align":
            return sampled_mask_targets(flat(truth["masks"]), rows.instance, rows.boxes, size)
        return mask_targets(rows.matched(truth["masks"]), rows.matched(truth["boxes"]), rows.boxes, size)

    def row_outputs(self, predictions, rows):
        """Mask probabilities inside the boxes."""
        return {"masks": ops.sigmoid(predictions)}

    def check(self, inputs):
        """Raises a ValueError if the masks among the inputs are not of the form that the targets need."""
        if self.stage.targets == "roi_align" and inputs["masks"].shape[2:] != inputs["images"].shape[1:3]:
            raise ValueError(
                'mask_stage targets="roi_align" needs masks of the whole canvas: data.batches(mask_size="canvas")'
            )

    def published(self, source, names):
        """Rows of published arrays, see `PUBLISHED` below; none for a file without a mask head."""
        prefix, name_map = PUBLISHED[source]
        return name_map(self, names) if any(name.startswith(prefix) for name in names) else ()

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
