"""Feature pyramid network (Lin et al. 2017)."""

import keras
from keras import ops

from keras_maskrcnn.layers.folding import conv_norm
from keras_maskrcnn.layers.norm import norm as make_norm


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class FPN(keras.layers.Layer):
    """Backbone levels C2…C5 to a pyramid P2…P5 of equal width, plus P6 for the RPN's largest anchors.

    A level is the sum of a 1×1 lateral convolution and the nearest-neighbour upsampled coarser level, followed by a 3×3
    convolution. P6 is P5 subsampled by two, without weights.

    Args:
        channels: width of every level.
        extra_level: whether to add P6.
        norm: kind of normalisation after every convolution, see `layers.norm.norm`; None for convolutions with a bias.
    """

    def __init__(self, channels=256, extra_level=True, norm=None, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.extra_level, self.norm = channels, extra_level, norm

    def build(self, input_shape):
        """Create the layers; `input_shape` is a dict such as {"C2": (None, H, W, C), …}."""
        self._levels = sorted(input_shape)
        self.lateral = {level: self._conv(1, f"lateral_{level}") for level in self._levels}
        self.output_conv = {level: self._conv(3, f"output_{level}") for level in self._levels}
        self.lateral_norm = self._norms("lateral")
        self.output_norm = self._norms("output")
        for level in self._levels:
            shape = (*input_shape[level][:-1], self.channels)
            self.lateral[level].build(input_shape[level])
            self.output_conv[level].build(shape)
            for norms in (self.lateral_norm, self.output_norm):
                if norms:
                    norms[level].build(shape)

    def _norms(self, stem):
        if self.norm is None:
            return {}
        return {level: make_norm(self.norm, f"{stem}_norm_{level}", self.dtype_policy) for level in self._levels}

    def _conv(self, size, name):
        return keras.layers.Conv2D(
            self.channels,
            size,
            padding="same",
            use_bias=self.norm is None,
            kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
            name=name,
            dtype=self.dtype_policy,
        )

    def call(self, features, training=False):
        """Build the pyramid.

        Args:
            features: dict of `[B, H, W, C]`, keys "C2", "C3", …, each half the size of the previous one.
            training: whether trainable batch normalisation uses batch statistics.

        Returns:
            dict of `[B, H, W, channels]` with keys "P2", "P3", …, finest first.

        Raises:
            ValueError: if a level is not twice as high and wide as the next.
        """
        self._check(features)
        merged = {}
        above = None
        for level in reversed(self._levels):
            lateral = _convolve(self.lateral, self.lateral_norm, level, features[level], training)
            above = lateral if above is None else lateral + _enlarge(above)
            merged[level] = above
        pyramid = {}
        for level in self._levels:
            pyramid[f"P{level[1:]}"] = _convolve(self.output_conv, self.output_norm, level, merged[level], training)
        if self.extra_level:
            coarsest = int(self._levels[-1][1:])
            pyramid[f"P{coarsest + 1}"] = pyramid[f"P{coarsest}"][:, ::2, ::2]
        return pyramid

    def _check(self, features):
        """Rejects levels that do not halve in size: a map of one cell would silently broadcast in the sum."""
        for fine, coarse in zip(self._levels, self._levels[1:], strict=False):
            for fine_side, coarse_side in zip(features[fine].shape[1:3], features[coarse].shape[1:3], strict=True):
                if None not in (fine_side, coarse_side) and fine_side != 2 * coarse_side:
                    raise ValueError(
                        f"{fine} {tuple(features[fine].shape[1:3])} is not twice {coarse} "
                        f"{tuple(features[coarse].shape[1:3])}: the input's sides must be multiples of the last stride"
                    )

    def compute_output_spec(self, features, training=False):
        """Output shapes and dtypes of `call`."""
        dtype = self.compute_dtype
        shapes = {f"P{level[1:]}": (*features[level].shape[:-1], self.channels) for level in self._levels}
        if self.extra_level:
            batch, height, width, channels = shapes[f"P{self._levels[-1][1:]}"]
            half = [side and -(-side // 2) for side in (height, width)]
            shapes[f"P{int(self._levels[-1][1:]) + 1}"] = (batch, *half, channels)
        return {level: keras.KerasTensor(shape, dtype) for level, shape in shapes.items()}

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "channels": self.channels, "extra_level": self.extra_level, "norm": self.norm}


def _convolve(convs, norms, level, x, training):
    """The convolution of a level, and its normalisation if the pyramid has one."""
    return conv_norm(convs[level], norms[level], x, training) if norms else convs[level](x)


def _enlarge(x):
    """Nearest-neighbour upsampling, `[B, H, W, C]` to `[B, 2H, 2W, C]`."""
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
