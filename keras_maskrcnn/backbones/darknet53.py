"""DarkNet-53 (Redmon & Farhadi 2018, table 1) as in YOLACT: residual blocks of a 1×1 and a 3×3 convolution."""

import math

import keras
from keras import layers

from keras_maskrcnn.backbones.backbone import Backbone
from keras_maskrcnn.layers.norm import norm as make_norm

# Residual blocks of each stage, which begins with a convolution of stride 2.
BLOCKS = (1, 2, 8, 8, 4)
# The stage that each level is the output of.
LEVELS = {"C2": 2, "C3": 3, "C4": 4, "C5": 5}
# Slope of the leaky ReLU for negative values.
SLOPE = 0.1


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class DarkNet53(Backbone):
    """DarkNet-53 without classifier: `[B, H, W, C]` to {"C2", "C3", "C4", "C5"} with strides 4 to 32.

    The levels have 128, 256, 512 and 1024 channels. Every convolution is followed by a normalisation and a leaky ReLU;
    nothing follows the sum of a block and its shortcut, so that levels also have negative values.

    Args:
        norm: "batch", "frozen_batch" or "group", see `layers.norm.norm`.
        width: channels of the stem; 32 in the paper. The others are in proportion.
        freeze_at: 0 trains all layers, 1 freezes the stem, 2 also the layers up to C2, and so on up to 5.
        norm_epsilon: added to the variance by the normalisation.
        input_channels: C, channels of the images.

    Attributes:
        pixel_mean: mean of the R, G, B values 0…255 that the published weights expect.
        pixel_std: the divisor; models take both as their defaults.

    Raises:
        ValueError: for an unknown norm, `freeze_at` outside 0…5, or a width below 1.
    """

    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (255.0, 255.0, 255.0)

    def __init__(
        self,
        norm="batch",
        width=32,
        freeze_at=0,
        norm_epsilon=1e-5,
        input_channels=3,
        dtype=None,
        name="darknet53",
    ):
        if width < 1:
            raise ValueError(f"width={width} is not at least 1")
        if freeze_at not in range(6):
            raise ValueError(f"freeze_at={freeze_at} is not one of 0, 1, 2, 3, 4, 5")
        make = _Builder(norm, norm_epsilon, dtype)
        inputs = keras.Input((None, None, input_channels), name="images", dtype="float32")
        x = make.unit(inputs, width, 3, name="stem")
        outputs = []
        for stage, blocks in enumerate(BLOCKS, start=1):
            x = make.unit(x, width * 2**stage, 3, stride=2, name=f"stage{stage}_down")
            for i in range(blocks):
                x = make.block(x, name=f"stage{stage}_block{i + 1}")
            outputs.append(x)
        outputs = {level: outputs[stage - 1] for level, stage in LEVELS.items()}
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.norm, self.width, self.freeze_at, self.norm_epsilon = norm, width, freeze_at, norm_epsilon
        self.input_channels, self._dtype_argument = input_channels, dtype
        self.freeze_stages(freeze_at, LEVELS)


class _Builder:
    """Units and blocks with one kind of normalisation and one dtype policy."""

    def __init__(self, norm, norm_epsilon, dtype):
        self.norm, self.norm_epsilon, self.dtype = norm, norm_epsilon, dtype

    def unit(self, x, channels, size, stride=1, name=""):
        """Convolution with symmetric padding (torch's rule, not TensorFlow's "same"), normalisation, leaky ReLU."""
        if stride > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad", dtype=self.dtype)(x)
        x = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            name=f"{name}_conv",
            dtype=self.dtype,
        )(x)
        x = make_norm(self.norm, f"{name}_norm", self.dtype, self.norm_epsilon, math.gcd(channels, 32))(x)
        return layers.LeakyReLU(SLOPE, name=f"{name}_relu", dtype=self.dtype)(x)

    def block(self, x, name):
        """1×1 convolution to half the channels, 3×3 convolution back to all, shortcut."""
        channels = x.shape[-1]
        y = self.unit(x, channels // 2, 1, name=f"{name}_1")
        y = self.unit(y, channels, 3, name=f"{name}_2")
        return layers.Add(name=f"{name}_add", dtype=self.dtype)([x, y])
