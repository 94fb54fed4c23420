"""EfficientNet-Lite 0/1/2 (TensorFlow, 2020): EfficientNet without squeeze-and-excite, with ReLU6 in place of swish."""

import math

import keras
from keras import layers

from keras_maskrcnn.backbones.backbone import Backbone
from keras_maskrcnn.backbones.inverted_residual import Builder, multiple_of_8

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
class EfficientNetLite(Backbone):
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
        make = Builder(norm, EPSILON, "same", dtype)
        inputs = keras.Input((None, None, input_channels), name="images", dtype="float32")
        x = make.conv_norm(inputs, layers.Conv2D, 3, stride=2, filters=STEM, name="stem")
        outputs = make.stages(x, stages(variant))
        outputs = {level: outputs[stage] for level, stage in LEVELS.items()}
        super().__init__(inputs=inputs, outputs=outputs, name=name or f"efficientnet_lite{variant}")
        self.variant, self.norm, self.freeze_at = variant, norm, freeze_at
        self.input_channels, self._dtype_argument = input_channels, dtype
        self.freeze_stages(freeze_at, LEVELS)


def stages(variant):
    """`STAGES` of a variant."""
    width, depth = VARIANTS[variant]
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES, start=1):
        if 1 < number < len(STAGES):
            repeats = math.ceil(repeats * depth)
        yield repeats, kernel, stride, expansion, multiple_of_8(channels * width)
