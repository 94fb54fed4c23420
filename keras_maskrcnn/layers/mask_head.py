"""Mask branch: a small fully convolutional network on each region (Mask R-CNN, figure 4 right)."""

import keras
from keras import ops

from keras_maskrcnn.layers.conv_stack import ConvStack


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class Deconvolution2x(keras.layers.Layer):
    """Transposed 2×2 convolution of stride 2: each cell becomes four.

    With stride equal to the kernel no outputs overlap, so this is one matrix product to four times the channels,
    whose result is laid out as 2×2 blocks. That is faster than the general transposed convolution and the same.

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
        """The four cells that each cell becomes, beside each other: `[N, H, W, C]` to `[N, H, W, 4, filters]`."""
        _, height, width, channels = inputs.shape
        kernel = ops.reshape(self.kernel, (1, 1, channels, 4 * self.filters))
        bias = ops.tile(ops.convert_to_tensor(self.bias), [4])
        return ops.reshape(ops.conv(inputs, kernel) + bias, (-1, height, width, 4, self.filters))

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "filters": self.filters}


def unfold_blocks(blocks):
    """Cells that stand beside each other to their places in 2×2 blocks: `[N, H, W, 4, C]` to `[N, 2H, 2W, C]`."""
    _, height, width, _, channels = blocks.shape
    grid = ops.transpose(ops.reshape(blocks, (-1, height, width, 2, 2, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(grid, (-1, 2 * height, 2 * width, channels))


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class MaskHead(keras.layers.Layer):
    """Convolutions, one deconvolution to twice the size, and one mask a class.

    Args:
        num_classes: classes without background; column 0 of the output is background and never learns.
        width: channels of every hidden layer.
        depth: number of 3×3 convolutions.
        norm: normalisation after each of them, see `layers.norm.norm`.
    """

    def __init__(self, num_classes, width=256, depth=4, norm=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.width, self.depth, self.norm = num_classes, width, depth, norm

    def build(self, input_shape):
        """Create the layers for regions of `input_shape` (N, P, P, C)."""
        self.stack = ConvStack(self.depth, self.width, self.norm, name="stack", dtype=self.dtype_policy)
        self.deconvolution = Deconvolution2x(self.width, name="deconvolution", dtype=self.dtype_policy)
        self.logits = keras.layers.Conv2D(
            self.num_classes + 1, 1, kernel_initializer="he_normal", name="logits", dtype=self.dtype_policy
        )
        self.stack.build((None, *input_shape[1:]))
        self.deconvolution.build(self.stack.compute_output_shape((None, *input_shape[1:])))
        self.logits.build((None, None, None, self.width))

    @property
    def convs(self):
        """The 3×3 convolutions."""
        return self.stack.convs

    @property
    def norms(self):
        """Their normalisations; empty without."""
        return self.stack.norms

    def call(self, regions, labels, training=False):
        """Predict the mask of each region for its own class.

        Args:
            regions: `[N, P, P, C]`, N ≥ 1 (TensorFlow's 1×1 convolution fails on an empty batch on the CPU).
            labels: int32 `[N]`, 0…K, the class whose mask is wanted.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            float32 `[N, 2P, 2P]` logits.
        """
        hidden = self.stack(regions, training=training)
        blocks = ops.relu(self.deconvolution.blocks(ops.cast(hidden, self.compute_dtype)))
        return ops.cast(unfold_blocks(self._own_class(blocks, labels))[..., 0], "float32")

    def _own_class(self, blocks, labels):
        """The last layer, of each region's class alone: `[N, P, P, 4, C]` to `[N, P, P, 4, 1]`."""
        size = blocks.shape[1]
        kernel, bias = (
            ops.cast(ops.take(w, labels, axis=-1), blocks.dtype) for w in (self.logits.kernel, self.logits.bias)
        )
        column = ops.transpose(kernel[0, 0])[..., None]
        logits = ops.matmul(ops.reshape(blocks, (-1, 4 * size * size, self.width)), column)
        return ops.reshape(logits + bias[:, None, None], (-1, size, size, 4, 1))

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "width": self.width,
            "depth": self.depth,
            "norm": self.norm,
        }
