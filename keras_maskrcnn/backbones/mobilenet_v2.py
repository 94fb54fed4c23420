"""MobileNetV2 (Sandler et al. 2018) as in torchvision: inverted residuals with ReLU6, symmetric padding."""

import keras
from keras import layers

from keras_maskrcnn.backbones.backbone import Backbone
from keras_maskrcnn.backbones.inverted_residual import Builder, multiple_of_8

# Repeats, kernel size, stride, expansion and channels of each stage (the paper's table 2).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (3, 3, 2, 6, 32),
    (4, 3, 2, 6, 64),
    (3, 3, 1, 6, 96),
    (3, 3, 2, 6, 160),
    (1, 3, 1, 6, 320),
)
LAST = 1280
# The stage that each level is the output of; C5 is followed by the last 1×1 convolution.
LEVELS = {"C2": 2, "C3": 3, "C4": 5, "C5": 7}


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class MobileNetV2(Backbone):
    """MobileNetV2 without classifier: `[B, H, W, C]` to {"C2", "C3", "C4", "C5"} with strides 4 to 32.

    C2, C3 and C4 are outputs of blocks, with 24, 32 and 96 channels. C5 has 1280 channels: the last 1×1 convolution
    belongs to the features, as in torchvision's `mobilenet_v2().features`.

    Args:
        norm: "batch", "frozen_batch" or "group", see `layers.norm.norm`.
        width: channels of the stem, a multiple of 8; 32 in the paper. The others are in proportion, rounded to
            multiples of 8, except for the last 1×1 convolution, which has no fewer than 1280.
        last_conv: whether the last 1×1 convolution belongs to C5; without it C5 has 320 channels.
        freeze_at: 0 trains all layers, 1 freezes the stem, 2 also the layers up to C2, and so on up to 5.
        norm_epsilon: added to the variance by the normalisation.
        padding: "symmetric" pads units of stride 2 by one pixel on all sides; "same" is TensorFlow's rule, which pads
            inputs of even size at the bottom and on the right only.
        pixel_mean: mean of the R, G, B values 0…255 that the weights expect, which `MaskRCNN` takes as its default;
            None for ImageNet's as torchvision has it.
        pixel_std: their standard deviation; None likewise.
        input_channels: C, channels of the images.

    Raises:
        ValueError: for an unknown norm or `padding`, `freeze_at` outside 0…5, or another `width`.
    """

    def __init__(
        self,
        norm="batch",
        width=32,
        last_conv=True,
        freeze_at=0,
        norm_epsilon=1e-5,
        padding="symmetric",
        pixel_mean=None,
        pixel_std=None,
        input_channels=3,
        dtype=None,
        name="mobilenet_v2",
    ):
        if width < 8 or width % 8:
            raise ValueError(f"width={width} is not a multiple of 8")
        if freeze_at not in range(6):
            raise ValueError(f"freeze_at={freeze_at} is not one of 0, 1, 2, 3, 4, 5")
        if padding not in ("symmetric", "same"):
            raise ValueError(f"padding={padding!r} is not 'symmetric' or 'same'")
        make = Builder(norm, norm_epsilon, padding, dtype)
        inputs = keras.Input((None, None, input_channels), name="images", dtype="float32")
        x = make.conv_norm(inputs, layers.Conv2D, 3, stride=2, filters=width, name="stem")
        scale = width / 32
        outputs = make.stages(x, [(*stage[:4], multiple_of_8(stage[4] * scale)) for stage in STAGES])
        outputs = {level: outputs[stage] for level, stage in LEVELS.items()}
        if last_conv:
            last = multiple_of_8(LAST * max(1, scale))
            # Named as a part of the last stage, with which it is frozen.
            outputs["C5"] = make.conv_norm(outputs["C5"], layers.Conv2D, 1, filters=last, name="stage7_last")
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.norm, self.width, self.last_conv, self.freeze_at = norm, width, last_conv, freeze_at
        self.norm_epsilon, self.padding = norm_epsilon, padding
        self.pixel_mean, self.pixel_std = (None if v is None else tuple(v) for v in (pixel_mean, pixel_std))
        self.input_channels, self._dtype_argument = input_channels, dtype
        self.freeze_stages(freeze_at, LEVELS)
