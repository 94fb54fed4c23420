"""Image checks, resizing and padding masks."""

import keras
import numpy as np
from keras import ops


def check(image):
    """The image as an array.

    Raises:
        ValueError: if it is not uint8 `[H, W, 3]` with at least one pixel.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    return image


def fit(image, size, antialias=True):
    """Bilinear resize.

    Args:
        image: uint8 `[H, W, 3]`.
        size: (height, width).
        antialias: whether to smooth when downsampling.

    Returns:
        float32 `[*size, 3]`, 0…255.
    """
    image = ops.cast(image, "float32")
    if tuple(size) == tuple(image.shape[:2]):
        return image
    return keras.ops.image.resize(
        image, size, interpolation="bilinear", antialias=antialias, data_format="channels_last"
    )


def inside(height, width, sizes):
    """Bool `[B, height, width]`: canvas pixels that belong to the image, given `sizes` float32 `[B, 2]`."""
    rows = ops.cast(ops.arange(height), "float32")[None, :] < sizes[:, :1]
    columns = ops.cast(ops.arange(width), "float32")[None, :] < sizes[:, 1:]
    return ops.logical_and(rows[:, :, None], columns[:, None, :])
