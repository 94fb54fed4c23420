"""Feature pyramid network (Lin et al. 2017)."""

import keras
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.layers.folding import conv_norm, convolved
from keras_maskrcnn.layers.norm import norm as make_norm
from keras_maskrcnn.ops.maps import resize
from keras_maskrcnn.options import check_choice


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class FPN(keras.layers.Layer):
    """Backbone levels C2…C5 to a pyramid P2…P5 of equal width, plus P6 for the RPN's largest anchors.

    A level is the sum of a 1×1 lateral convolution and the upsampled coarser level, followed by a 3×3 convolution. P6
    is P5 subsampled by two, without weights.

    Args:
        channels: width of every level.
        extra_level: whether to add P6.
        norm: kind of normalisation after every convolution, see `layers.norm.norm`; None for convolutions with a bias.
        convolved_levels: number of levels in place of P6 that are 3×3 convolutions of stride 2, each of the level
            before it: P6 and P7 with 2 (RetinaNet, Lin et al. 2017, section 4; YOLACT).
        upsampling: "nearest", for levels that halve in size; or "bilinear", to the size of the finer level.
        relu: whether a ReLU follows the 3×3 convolutions of P2…P5.

    Raises:
        ValueError: for another `upsampling`, or `convolved_levels` together with `extra_level`.
    """

    def __init__(
        self,
        channels=256,
        extra_level=True,
        norm=None,
        convolved_levels=0,
        upsampling="nearest",
        relu=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("upsampling", upsampling, ("nearest", "bilinear"))
        if convolved_levels and extra_level:
            raise ValueError(f"convolved_levels={convolved_levels} replace the level of extra_level=True")
        self.channels, self.extra_level, self.norm = channels, extra_level, norm
        self.convolved_levels, self.upsampling, self.relu = convolved_levels, upsampling, relu

    def build(self, input_shape):
        """Create the layers; `input_shape` is a dict such as {"C2": (None, H, W, C), …}."""
        self._levels = sorted(input_shape)
        coarsest = int(self._levels[-1][1:])
        self._further = [f"P{coarsest + i + 1}" for i in range(self.convolved_levels)]
        self.lateral = {level: self._conv(1, f"lateral_{level}") for level in self._levels}
        self.output_conv = {level: self._conv(3, f"output_{level}") for level in self._levels}
        self.down_conv = {level: self._conv(3, f"down_{level}", stride=2) for level in self._further}
        self.lateral_norm = self._norms("lateral", self._levels)
        self.output_norm = self._norms("output", self._levels)
        self.down_norm = self._norms("down", self._further)
        for level in self._levels:
            self.lateral[level].build(input_shape[level])
        shape = (None, None, None, self.channels)
        of_width = (self.output_conv, self.down_conv, self.lateral_norm, self.output_norm, self.down_norm)
        for layer in (layer for layers in of_width for layer in layers.values()):
            layer.build(shape)

    def _norms(self, stem, levels):
        if self.norm is None:
            return {}
        return {level: make_norm(self.norm, f"{stem}_norm_{level}", self.dtype_policy) for level in levels}

    def _conv(self, size, name, stride=1):
        return keras.layers.Conv2D(
            self.channels,
            size,
            strides=stride,
            padding="same" if stride == 1 else "valid",
            use_bias=self.norm is None,
            kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
            name=name,
            dtype=self.dtype_policy,
        )

    def call(self, features, training=False):
        """Build the pyramid.

        Args:
            features: dict of `[B, H, W, C]`, keys "C2", "C3", …, each half the size of the previous one, rounded up.
            training: whether trainable batch normalisation uses batch statistics.

        Returns:
            dict of `[B, H, W, channels]` with keys "P2", "P3", …, finest first.

        Raises:
            ValueError: with `upsampling="nearest"`, if a level is not twice as high and wide as the next.
        """
        if self.upsampling == "nearest":
            self._check(features)
        merged = {}
        above = None
        for level in reversed(self._levels):
            lateral = _convolve(self.lateral, self.lateral_norm, level, features[level], training)
            above = lateral if above is None else lateral + self._enlarged(above, lateral)
            merged[level] = above
        pyramid = {}
        for level in self._levels:
            output = _convolve(self.output_conv, self.output_norm, level, merged[level], training)
            pyramid[f"P{level[1:]}"] = ops.relu(output) if self.relu else output
        last = pyramid[f"P{self._levels[-1][1:]}"]
        if self.extra_level:
            pyramid[f"P{int(self._levels[-1][1:]) + 1}"] = _every_second(last)
        for level in self._further:
            # torch's symmetric padding: "same" pads even sides at the bottom and on the right only.
            padded = ops.pad(last, [[0, 0], [1, 1], [1, 1], [0, 0]])
            last = pyramid[level] = _convolve(self.down_conv, self.down_norm, level, padded, training)
        return pyramid

    def _enlarged(self, coarse, fine):
        if self.upsampling == "nearest":
            return _enlarge(coarse)
        return resize(coarse, ops.shape(fine)[1:3])

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
        batch, height, width, channels = shapes[f"P{self._levels[-1][1:]}"]
        for i in range(self.convolved_levels or int(self.extra_level)):
            height, width = (side and -(-side // 2) for side in (height, width))
            shapes[f"P{int(self._levels[-1][1:]) + i + 1}"] = (batch, height, width, channels)
        return {level: keras.KerasTensor(shape, dtype) for level, shape in shapes.items()}

    def get_config(self):
        """Constructor arguments."""
        names = ("channels", "extra_level", "norm", "convolved_levels", "upsampling", "relu")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _convolve(convs, norms, level, x, training):
    """The convolution of a level, and its normalisation if the pyramid has one."""
    return conv_norm(convs[level], norms[level], x, training) if norms else convolved(convs[level], x)


def _every_second(x):
    """Every second row and column, `[B, H, W, C]` to `[B, ⌈H / 2⌉, ⌈W / 2⌉, C]`."""
    if backend.static_shapes() and None in x.shape[1:3]:
        # OpenVINO takes the open size of the slice below for that of its input.
        return ops.max_pool(x, 1, strides=2)
    return x[:, ::2, ::2]


def _enlarge(x):
    """Nearest-neighbour upsampling, `[B, H, W, C]` to `[B, 2H, 2W, C]`."""
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
