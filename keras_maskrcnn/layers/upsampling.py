"""Up-sampling of maps by interpolation, unpooling or a learned deconvolution."""

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.ops.maps import enlarge, unpool
from keras_maskrcnn.options import check_choice

METHODS = ("nearest", "bilinear", "bicubic", "unpool", "max_unpool", "deconvolution")


def bilinear_kernel(shape, dtype=None):
    """Kernel by which each channel is interpolated bilinearly, alone: the initial one of Long et al. (2015), 3.3.

    Args:
        shape: (n, n, C, C).
        dtype: of the kernel.
    """
    side, channels = shape[0], shape[-1]
    reach = (side + 1) // 2
    line = 1 - np.abs(np.arange(side) - (side - 1) / 2) / reach
    kernel = line[:, None, None, None] * line[None, :, None, None] * np.eye(channels)
    return ops.convert_to_tensor(kernel, dtype or "float32")


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class Upsampling(keras.layers.Layer):
    """`[B, h, w, C]` to `[B, factor·h, factor·w, C]`.

    | method                           | values                                                                    |
    |----------------------------------|---------------------------------------------------------------------------|
    | "nearest", "bilinear", "bicubic" | interpolated, see `ops.maps.enlarge`; no weights                          |
    | "unpool"                         | in the top left pixel of each window and zeros, then a 3×3 convolution    |
    | "max_unpool"                     | in the pixel that max pooling of a guide took, then a 3×3 convolution     |
    | "deconvolution"                  | a transposed convolution with a kernel of 4×4 and stride 2                |

    "unpool" and "deconvolution" take as many steps of ×2 as make the factor. Convolutions are linear and start with the
    kernel of bilinear interpolation. SegNet (Badrinarayanan et al. 2017) keeps the indices of the pooling layers of its
    encoder. Most backbones have strides instead, so the indices here are those of a 2×2 max pooling of the encoder's
    map at the finer stride, averaged over its channels: one place for all channels.

    Args:
        factor: power of 2.
        method: one of `METHODS`.

    Raises:
        ValueError: for another factor or method.
    """

    def __init__(self, factor, method="bilinear", **kwargs):
        super().__init__(**kwargs)
        check_choice("upsampling", method, METHODS)
        if not isinstance(factor, int) or factor < 1 or factor & (factor - 1):
            raise ValueError(f"factor={factor!r} of an up-sampling must be a power of 2")
        self.factor, self.method = factor, method

    def build(self, input_shape):
        """Create the convolutions."""
        channels = input_shape[-1]
        steps = {"unpool": self.factor.bit_length() - 1, "max_unpool": int(self.factor > 1)}
        steps["deconvolution"] = steps["unpool"]
        self.convs = [self._conv(channels, f"conv{i + 1}") for i in range(steps.get(self.method, 0))]
        for conv in self.convs:
            conv.build((None, None, None, channels))

    def _conv(self, channels, name):
        options = {"kernel_initializer": bilinear_kernel, "name": name, "dtype": self.dtype_policy}
        if self.method == "deconvolution":
            return keras.layers.Conv2DTranspose(channels, 4, strides=2, **options)
        return keras.layers.Conv2D(channels, 3, padding="same", **options)

    def call(self, values, guide=None):
        """Up-sample a map.

        Args:
            values: `[B, h, w, C]`.
            guide: `[B, factor·h, factor·w, G]` for "max_unpool"; not used by other methods.

        Raises:
            ValueError: for "max_unpool" without a guide.
        """
        if self.method == "max_unpool" and guide is None:
            raise ValueError("upsampling='max_unpool' needs a guide")
        if self.method in ("nearest", "bilinear", "bicubic"):
            return enlarge(values, self.factor, self.method)
        factor, guide = (self.factor, guide) if self.method == "max_unpool" else (2, None)
        for conv in self.convs:
            if self.method == "deconvolution":
                # The edge cells are repeated, as in `enlarge`; zeros would darken the border.
                values = conv(ops.pad(values, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric"))[:, 3:-3, 3:-3]
            else:
                values = conv(unpool(values, factor, guide))
        return values

    def compute_output_shape(self, input_shape):
        """Output shape of `call`."""
        height, width = (side and self.factor * side for side in input_shape[1:3])
        return (input_shape[0], height, width, input_shape[-1])

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "factor": self.factor, "method": self.method}
