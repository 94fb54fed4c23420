"""The 3×3 convolutions at the input of a head, each with a bias or a normalisation, and ReLU."""

import keras
from keras import ops

from keras_maskrcnn.layers.folding import conv_norm, convolved
from keras_maskrcnn.layers.norm import norm as make_norm


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class ConvStack(keras.layers.Layer):
    """`depth` times 3×3 convolution, normalisation, ReLU.

    Args:
        depth: number of convolutions; with 0 the layer is the identity.
        width: channels of each convolution.
        norm: kind of normalisation, see `layers.norm.norm`; None for convolutions with a bias instead.
    """

    def __init__(self, depth, width, norm=None, **kwargs):
        super().__init__(**kwargs)
        self.depth, self.width, self.norm = depth, width, norm

    def build(self, input_shape):
        """Create the layers; `input_shape` is (N, P, P, C)."""
        self.convs = [self._conv(f"conv{i + 1}") for i in range(self.depth)]
        self.norms = [
            make_norm(self.norm, f"norm{i + 1}", self.dtype_policy) for i in range(self.depth if self.norm else 0)
        ]
        hidden = (*input_shape[:-1], self.width)
        for i, conv in enumerate(self.convs):
            conv.build(hidden if i else input_shape)
        for norm in self.norms:
            norm.build(hidden)

    def _conv(self, name):
        return keras.layers.Conv2D(
            self.width,
            3,
            padding="same",
            activation=None if self.norm else "relu",
            use_bias=not self.norm,
            kernel_initializer="he_normal",
            name=name,
            dtype=self.dtype_policy,
        )

    def call(self, regions, training=False, valid=None):
        """Run the convolutions.

        Args:
            regions: `[N, P, P, C]`.
            training: whether batch normalisation uses the batch's statistics.
            valid: bool `[N]`, the rows that these statistics are computed from; None for all.

        Returns:
            `[N, P, P, width]`.
        """
        if not self.norm:
            for conv in self.convs:
                regions = convolved(conv, regions)
            return regions
        for conv, norm in zip(self.convs, self.norms, strict=True):
            regions = ops.relu(conv_norm(conv, norm, regions, training, valid))
        return regions

    def compute_output_shape(self, input_shape):
        """Output shape of `call`."""
        return (*input_shape[:-1], self.width if self.depth else input_shape[-1])

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "depth": self.depth, "width": self.width, "norm": self.norm}
