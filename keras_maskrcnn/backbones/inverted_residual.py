"""Inverted residual blocks (Sandler et al. 2018, section 3.3), of which MobileNetV2 and EfficientNet-Lite consist."""

import math

import keras
from keras import layers

from keras_maskrcnn.layers.norm import norm as make_norm


def multiple_of_8(channels):
    """The nearest multiple of 8 that is not more than 10 % smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class Builder:
    """Blocks with one kind of normalisation and one dtype policy.

    Args:
        norm: kind of normalisation, see `layers.norm.norm`.
        epsilon: added to the variance by the normalisation.
        padding: of units of stride 2: "symmetric" (torch) or "same" (TensorFlow).
        dtype: Keras dtype policy.
    """

    def __init__(self, norm, epsilon, padding, dtype):
        self.norm, self.epsilon, self.padding, self.dtype = norm, epsilon, padding, dtype

    def stages(self, x, stages):
        """Run stages, each a tuple of repeats, kernel size, stride of the first block, expansion and channels.

        Returns:
            dict from the number of a stage, from 1, to its output.
        """
        outputs = {}
        for stage, (repeats, kernel, stride, expansion, channels) in enumerate(stages, start=1):
            for i in range(repeats):
                block = f"stage{stage}_block{i + 1}"
                x = self.block(x, kernel, stride if i == 0 else 1, expansion, channels, block)
            outputs[stage] = x
        return outputs

    def conv_norm(self, x, convolution, size, stride=1, relu=True, name="", **options):
        """Convolution of a class, normalisation, ReLU6."""
        initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        kernel = "depthwise" if convolution is layers.DepthwiseConv2D else "kernel"
        pads = stride > 1 and self.padding == "symmetric"
        if pads:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad", dtype=self.dtype)(x)
        x = convolution(
            kernel_size=size,
            strides=stride,
            padding="valid" if pads else "same",
            use_bias=False,
            name=f"{name}_conv",
            dtype=self.dtype,
            **{f"{kernel}_initializer": initializer},
            **options,
        )(x)
        x = make_norm(self.norm, f"{name}_norm", self.dtype, self.epsilon, math.gcd(x.shape[-1], 32))(x)
        return layers.ReLU(6, name=f"{name}_relu", dtype=self.dtype)(x) if relu else x

    def block(self, x, size, stride, expansion, channels, name):
        """1×1 convolution to more channels, depthwise convolution, linear 1×1 convolution; a shortcut where it fits."""
        y, inputs = x, x.shape[-1]
        if expansion > 1:
            y = self.conv_norm(y, layers.Conv2D, 1, filters=inputs * expansion, name=f"{name}_expand")
        y = self.conv_norm(y, layers.DepthwiseConv2D, size, stride, name=f"{name}_depthwise")
        y = self.conv_norm(y, layers.Conv2D, 1, filters=channels, relu=False, name=f"{name}_project")
        return layers.Add(name=f"{name}_add", dtype=self.dtype)([x, y]) if stride == 1 and inputs == channels else y
