"""Region proposal network: the head (Faster R-CNN, figure 3 left)."""

import keras
from keras import ops

from keras_maskrcnn.layers.folding import conv_norm
from keras_maskrcnn.layers.norm import norm as make_norm


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class RPNHead(keras.layers.Layer):
    """Objectness and box deltas for every anchor, with weights shared by all levels.

    Args:
        num_anchors: anchors a location.
        channels: width of the 3×3 convolutions; None takes the input's width.
        depth: number of 3×3 convolutions.
        norm: normalisation between each of them and its ReLU, see `layers.norm.norm`; None gives them a bias instead.
    """

    def __init__(self, num_anchors, channels=None, depth=1, norm=None, **kwargs):
        super().__init__(**kwargs)
        self.num_anchors, self.channels, self.depth, self.norm = num_anchors, channels, depth, norm

    def build(self, input_shape):
        """Create the convolutions for levels of `input_shape` (…, C), or for a list of such shapes."""
        if isinstance(input_shape[0], list | tuple):
            input_shape = input_shape[0]
        channels = self.channels or input_shape[-1]
        normal = keras.initializers.RandomNormal(stddev=0.01)
        conv = {"kernel_initializer": normal, "dtype": self.dtype_policy}
        self.convs = [
            keras.layers.Conv2D(channels, 3, padding="same", use_bias=not self.norm, name=f"conv{i + 1}", **conv)
            for i in range(self.depth)
        ]
        self.norms = [
            make_norm(self.norm, f"norm{i + 1}", self.dtype_policy) for i in range(self.depth if self.norm else 0)
        ]
        self.objectness = keras.layers.Conv2D(self.num_anchors, 1, name="objectness", **conv)
        self.deltas = keras.layers.Conv2D(4 * self.num_anchors, 1, name="deltas", **conv)
        hidden = (*input_shape[:-1], channels)
        for i, layer in enumerate(self.convs):
            layer.build(hidden if i else input_shape)
        for layer in self.norms:
            layer.build(hidden)
        self.objectness.build(hidden)
        self.deltas.build(hidden)

    def call(self, features, training=False):
        """Score all anchors of all levels.

        Args:
            features: list of `[B, H, W, C]`, finest first.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            (logits, deltas): lists, one entry a level, of float32 `[B, H·W·A]` and `[B, H·W·A, 4]`, in the order of
            `ops.anchors.grid_anchors`.
        """
        logits, deltas = [], []
        for level, hidden in zip(features, self._hidden(features, training), strict=True):
            height, width = ops.shape(level)[1:3]
            cells = height * width
            logits.append(ops.reshape(self.objectness(hidden), (-1, cells * self.num_anchors)))
            deltas.append(ops.reshape(self.deltas(hidden), (-1, cells * self.num_anchors, 4)))
        return [ops.cast(x, "float32") for x in logits], [ops.cast(x, "float32") for x in deltas]

    def _hidden(self, levels, training):
        for i, conv in enumerate(self.convs):
            if not self.norm:
                levels = [conv(level) for level in levels]
            elif self.norm == "batch" and training:
                levels = _normalise_together(self.norms[i], [conv(level) for level in levels])
            else:
                levels = [conv_norm(conv, self.norms[i], level) for level in levels]
            levels = [ops.relu(level) for level in levels]
        return levels

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "num_anchors": self.num_anchors,
            "channels": self.channels,
            "depth": self.depth,
            "norm": self.norm,
        }


def _normalise_together(norm, levels):
    """Batch normalisation over the pixels of all levels: inference has one set of statistics, so training has too."""
    if len(levels) == 1:
        return [norm(levels[0], training=True)]
    sizes = [(level.shape[1], level.shape[2]) for level in levels]
    channels = levels[0].shape[-1]
    pixels = ops.concatenate(
        [ops.reshape(level, (-1, h * w, 1, channels)) for level, (h, w) in zip(levels, sizes, strict=True)], axis=1
    )
    ends = [sum(h * w for h, w in sizes[: i + 1]) for i in range(len(sizes) - 1)]
    parts = ops.split(norm(pixels, training=True), ends, axis=1)
    return [ops.reshape(part, (-1, *size, channels)) for part, size in zip(parts, sizes, strict=True)]
