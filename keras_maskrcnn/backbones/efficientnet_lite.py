"""EfficientNet-Lite 0/1/2 (TensorFlow, 2020): EfficientNet without squeeze-and-excite, with ReLU6 in place of swish."""

import math

import keras
from keras import layers

from keras_maskrcnn.layers.folding import FoldingModel
from keras_maskrcnn.layers.norm import norm as make_norm

# Repeats, kernel size, stride, expansion and channels of each stage of Lite0. Source: the table of EfficientNet-B0 (Tan
# & Le 2019), which tensorflow/tpu's efficientnet_lite_builder.py keeps.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
# Multipliers of the channels and of the repeats. They leave the stem, and the repeats of the first and last stage.
VARIANTS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
# The stage that each level is the output of.
LEVELS = {"C2": 2, "C3": 3, "C4": 5, "C5": 7}
EPSILON = 1e-3


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class EfficientNetLite(FoldingModel):
    """EfficientNet-Lite without classifier: `[B, H, W, C]` to {"C2", "C3", "C4", "C5"} with strides 4 to 32.

    The levels are outputs of the blocks' last, linear convolutions, with 24, 40, 112 and 320 channels in Lite0. Padding
    is TensorFlow's "same": at even sizes, the window of a unit of stride s reaches further right and down than left and
    up, and is centred on pixel s·i + s - 1 where `ResNet`'s is on s·i.

    Args:
        variant: 0, 1 or 2.
        norm: "batch", "frozen_batch" or "group", see `layers.norm.norm`.
        freeze_at: 0 trains all layers, 1 freezes the stem, 2 also the layers up to C2, and so on up to 5.
        input_channels: C, channels of the images.

    Attributes:
        pixel_mean: mean of the R, G, B values 0…255 that the published weights expect.
        pixel_std: the divisor; `MaskRCNN` takes both as its defaults.

    Raises:
        ValueError: for an unknown variant or norm, or `freeze_at` outside 0…5.
    """

    pixel_mean = (127.0, 127.0, 127.0)
    pixel_std = (128.0, 128.0, 128.0)

    def __init__(self, variant=0, norm="batch", freeze_at=0, input_channels=3, dtype=None, name=None):
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant} is not one of {tuple(VARIANTS)}")
        if freeze_at not in range(6):
            raise ValueError(f"freeze_at={freeze_at} is not one of 0, 1, 2, 3, 4, 5")
        make = _Builder(norm, dtype)
        inputs = keras.Input((None, None, input_channels), name="images", dtype="float32")
        x = make.conv_norm(inputs, layers.Conv2D, 3, stride=2, filters=STEM, name="stem")
        outputs = {}
        for stage, (repeats, kernel, stride, expansion, channels) in enumerate(stages(variant), start=1):
            for i in range(repeats):
                block = f"stage{stage}_block{i + 1}"
                x = make.block(x, kernel, stride if i == 0 else 1, expansion, channels, block)
            outputs[stage] = x
        outputs = {level: outputs[stage] for level, stage in LEVELS.items()}
        super().__init__(inputs=inputs, outputs=outputs, name=name or f"efficientnet_lite{variant}")
        self.variant, self.norm, self.freeze_at = variant, norm, freeze_at
        self.input_channels, self._dtype_argument = input_channels, dtype
        self._freeze(freeze_at)

    def _freeze(self, freeze_at):
        if not freeze_at:
            return
        last = [0, *LEVELS.values()][freeze_at - 1]
        frozen = {"stem", *(f"stage{stage}" for stage in range(1, last + 1))}
        for layer in self.layers:
            if layer.name.split("_")[0] in frozen:
                layer.trainable = False

    def get_config(self):
        """Constructor arguments."""
        return {
            "variant": self.variant,
            "norm": self.norm,
            "freeze_at": self.freeze_at,
            "input_channels": self.input_channels,
            "dtype": keras.saving.serialize_keras_object(self._dtype_argument),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        return cls(**{**config, "dtype": keras.saving.deserialize_keras_object(config.get("dtype"))})


def stages(variant):
    """`STAGES` of a variant."""
    width, depth = VARIANTS[variant]
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES, start=1):
        if 1 < number < len(STAGES):
            repeats = math.ceil(repeats * depth)
        yield repeats, kernel, stride, expansion, _multiple_of_8(channels * width)


def _multiple_of_8(channels):
    """The nearest multiple of 8 that is not more than 10 % smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class _Builder:
    """Blocks with one kind of normalisation and one dtype policy."""

    def __init__(self, norm, dtype):
        self.norm, self.dtype = norm, dtype

    def conv_norm(self, x, convolution, size, stride=1, relu=True, name="", **options):
        """Convolution of a class, normalisation, ReLU6."""
        initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        kernel = "depthwise" if convolution is layers.DepthwiseConv2D else "kernel"
        x = convolution(
            kernel_size=size,
            strides=stride,
            padding="same",
            use_bias=False,
            name=f"{name}_conv",
            dtype=self.dtype,
            **{f"{kernel}_initializer": initializer},
            **options,
        )(x)
        x = make_norm(self.norm, f"{name}_norm", self.dtype, EPSILON, math.gcd(x.shape[-1], 32))(x)
        return layers.ReLU(6, name=f"{name}_relu", dtype=self.dtype)(x) if relu else x

    def block(self, x, size, stride, expansion, channels, name):
        """1×1 convolution to more channels, depthwise convolution, linear 1×1 convolution; a shortcut where it fits."""
        y, inputs = x, x.shape[-1]
        if expansion > 1:
            y = self.conv_norm(y, layers.Conv2D, 1, filters=inputs * expansion, name=f"{name}_expand")
        y = self.conv_norm(y, layers.DepthwiseConv2D, size, stride, name=f"{name}_depthwise")
        y = self.conv_norm(y, layers.Conv2D, 1, filters=channels, relu=False, name=f"{name}_project")
        return layers.Add(name=f"{name}_add", dtype=self.dtype)([x, y]) if stride == 1 and inputs == channels else y
