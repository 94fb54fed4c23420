"""Fitting pictures of any size into the network's canvas."""

import keras
import numpy as np
from keras import ops


def check(picture):
    """The picture as an array.

    Raises:
        ValueError: if it is not uint8 `[H, W, 3]` with at least one pixel.
    """
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"a picture must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    return picture


def fit(picture, size, antialias=True):
    """A picture at another size: uint8 `[H, W, 3]` to float32 `[*size, 3]`, bilinear.

    Args:
        picture: uint8 `[H, W, 3]`.
        size: (height, width).
        antialias: whether it is smoothed when it shrinks.

    Returns:
        float32 `[*size, 3]`, 0…255.
    """
    picture = ops.cast(picture, "float32")
    if tuple(size) == tuple(picture.shape[:2]):
        return picture
    return keras.ops.image.resize(
        picture, size, interpolation="bilinear", antialias=antialias, data_format="channels_last"
    )


def inside(height, width, sizes):
    """Bool `[B, height, width]`: which canvas pixels belong to the picture, `sizes` being float32 `[B, 2]`."""
    rows = ops.cast(ops.arange(height), "float32")[None, :] < sizes[:, :1]
    columns = ops.cast(ops.arange(width), "float32")[None, :] < sizes[:, 1:]
    return ops.logical_and(rows[:, :, None], columns[:, None, :])
