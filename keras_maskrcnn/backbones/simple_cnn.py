"""The small backbone of the CIS 680 assignment: five 5×5 convolutions and four poolings."""

import keras
from keras import layers

from keras_maskrcnn.backbones.backbone import Backbone
from keras_maskrcnn.layers.norm import norm as make_norm


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class SimpleCNN(Backbone):
    """Five convolutions, each with normalisation and ReLU, with 2×2 max pooling between them.

    Maps `[B, H, W, C]` to {"C1", "C2", "C3", "C4"} with strides 2 to 16; C4 has 256 channels. H and W must be multiples
    of 16.

    Args:
        channels: channels of each convolution.
        kernel_size: side of all kernels.
        norm: "batch", "frozen_batch" or "group", see `layers.norm.norm`.
        input_channels: C, channels of the images.
    """

    def __init__(
        self,
        channels=(16, 32, 64, 128, 256),
        kernel_size=5,
        norm="batch",
        input_channels=3,
        dtype=None,
        name="simple_cnn",
    ):
        inputs = keras.Input((None, None, input_channels), name="images", dtype="float32")
        x, outputs = inputs, {}
        for i, width in enumerate(channels, start=1):
            x = layers.Conv2D(
                width,
                kernel_size,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name=f"conv{i}",
                dtype=dtype,
            )(x)
            x = make_norm(norm, f"norm{i}", dtype)(x)
            x = layers.ReLU(name=f"relu{i}", dtype=dtype)(x)
            if i > 1:
                outputs[f"C{i - 1}"] = x
            if i < len(channels):
                x = layers.MaxPooling2D(2, name=f"pool{i}", dtype=dtype)(x)
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.channels, self.kernel_size, self.norm = tuple(channels), kernel_size, norm
        self.input_channels, self._dtype_argument = input_channels, dtype
