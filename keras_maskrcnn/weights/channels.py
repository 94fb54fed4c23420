"""The first convolution of stored weights, for images of another number of channels.

Each of the C channels has the sum of the stored kernel over its input channels, divided by C. For one channel that is
the sum over R, G and B, and in general an image whose channels are equal has the features of the same image in grey,
stacked to R, G, B: exactly if mean and standard deviation are the same for all channels, as in EfficientNet-Lite, else
nearly. `timm` adapts input convolutions likewise (`adapt_input_conv` in its models/_manipulate.py: the sum for one
channel, else a factor of 3 / C), and Carreira & Zisserman (2017, section 2.4) inflate kernels by the same argument.
"""

import keras
import numpy as np


def first_kernel(backbone):
    """The kernel of the convolution that takes the images, `[y, x, C, out]`; None if the model has no such layer."""
    return next((layer.kernel for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)), None)


def fitting(kernel, shape):
    """A stored first kernel with the number of input channels in a shape; unchanged if anything else differs.

    Args:
        kernel: array `[y, x, channels, out]`.
        shape: `(y, x, C, out)`.
    """
    others = [axis for axis in range(len(shape)) if axis != 2]
    if kernel.ndim != 4 or kernel.shape[2] == shape[2] or any(kernel.shape[axis] != shape[axis] for axis in others):
        return kernel
    return np.repeat(kernel.sum(axis=2, keepdims=True) / shape[2], shape[2], axis=2)


def announce(path, theirs, ours):
    """Prints that the first convolution was adapted from one number of channels to another, if they differ."""
    if theirs != ours:
        print(f"{path}: first convolution adapted from {theirs} to {ours} channels")
