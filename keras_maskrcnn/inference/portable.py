"""Stretch and antialiased resize as TensorFlow graphs of operations that ONNX, OpenVINO and LiteRT have.

They compute in int32 and float32, because engines replace float64 by float32. TensorFlow itself has kernels that are
several times as fast, see `Placement.graph`.
"""

import dataclasses

from keras_maskrcnn.data.colour import MIN_RANGE, ranks

BLOCK = 32  # rows of the result that one matrix product computes


def antialiased(images, size, canvas):
    """Images at another size, bilinear and smoothed where they shrink, at the top left of a canvas of zeros.

    The values are those of `tf.image.resize(images, size, antialias=True)`.

    Args:
        images: float32 `[B, H, W, C]`.
        size: int32 `[2]`, height and width.
        canvas: int32 `[2]`, at least the size.

    Returns:
        float32 `[B, *canvas, C]`.
    """
    import tensorflow as tf

    for axis in range(2):
        images = tf.transpose(_resized_rows(images, size[axis], canvas[axis]), [0, 2, 1, 3])
    return images


def _resized_rows(images, count, canvas):
    """Images with `count` rows in place of H, and zeros up to `canvas`: `[B, H, W, C]` to `[B, canvas, W, C]`.

    A row of the result is a weighted mean of neighbouring rows. A block of `BLOCK` rows depends on a window of the
    image only, and is the product of a small matrix and this window.
    """
    import tensorflow as tf

    batch, channels = images.shape[0] or -1, images.shape[3]
    height, width = tf.unstack(tf.shape(images)[1:3])
    blocks = (canvas + BLOCK - 1) // BLOCK
    number = tf.reshape(tf.range(blocks * BLOCK), [blocks, BLOCK])
    # The order of these operations, and with it their rounding errors, is that of TensorFlow's kernel.
    step = 1.0 / (tf.cast(count, tf.float32) / tf.cast(height, tf.float32))
    centres = (tf.cast(number, tf.float32) + 0.5) * step
    support = tf.maximum(step, 1.0)
    window = tf.cast(tf.math.ceil((BLOCK - 1) * step + 2.0 * support), tf.int32) + 1
    window = tf.minimum(window, height)
    first = tf.cast(tf.floor(centres[:, :1] - support), tf.int32)
    rows = tf.clip_by_value(first, 0, height - window) + tf.range(window)
    distance = tf.cast(rows, tf.float32)[:, None] + 0.5 - centres[..., None]
    weights = tf.maximum(1.0 - tf.abs(distance) / support, 0.0)  # [blocks, BLOCK, window]
    weights /= tf.maximum(tf.reduce_sum(weights, axis=-1, keepdims=True), 1e-6)  # no row of the image: 0 / 1e-6
    weights *= tf.cast(number < count, tf.float32)[..., None]
    windows = tf.gather(tf.reshape(images, [batch, height, width * channels]), rows, axis=1)
    return tf.reshape(tf.matmul(weights, windows), [batch, blocks * BLOCK, width, channels])[:, :canvas]


def stretched(images, percentiles, image_type):
    """`data.stretch` of each image.

    Args:
        images: `[B, H, W, C]` of `image_type`.
        percentiles: (low, high) in [0, 100].
        image_type: `ImageType`.

    Returns:
        float32 `[B, H, W, C]`, whole levels.
    """
    import tensorflow as tf

    if image_type.channels not in (1, 3):
        alone = dataclasses.replace(image_type, channels=1)
        planes = tf.split(images, image_type.channels, axis=-1)
        return tf.concat([stretched(plane, percentiles, alone) for plane in planes], axis=-1)
    low, high = (_level(images, rank, image_type) for rank in ranks(tf.size(images[0]), percentiles, tf))
    top, batch = 255 * image_type.scale, tf.shape(images)[0]
    distance = tf.maximum(high - low, MIN_RANGE[image_type.dtype])
    table = _spread(tf.clip_by_value(tf.range(top + 1) - low, 0, distance), distance, image_type.scale)
    first = tf.reshape(tf.range(batch) * (top + 1), [batch, 1, 1, 1])
    return tf.gather(tf.reshape(table, [-1]), tf.cast(images, tf.int32) + first)


def _level(images, rank, image_type):
    """The value of a rank in each image: int32 `[B, 1]`, by binary search.

    It is the largest level below which there are fewer values than the rank.
    """
    import tensorflow as tf

    values = tf.cast(images, tf.float32)
    level, step = tf.zeros_like(values[:, :1, :1, :1]), (255.0 * image_type.scale + 1) / 2
    while step >= 1:
        below = tf.reduce_sum(tf.clip_by_value(level + step - values, 0.0, 1.0), axis=[2, 3])
        # A sum of more than 2^24 would not be exact.
        hundreds = tf.floor(below / 100.0)
        parts = (tf.reduce_sum(part, axis=1, keepdims=True) for part in (hundreds, below - 100.0 * hundreds))
        hundreds, ones = (tf.cast(part, tf.int32) for part in parts)
        level += step * tf.cast(hundreds * 100 + ones - rank < 0, tf.float32)[..., None, None]
        step /= 2
    return tf.cast(level[:, :, 0, 0], tf.int32)


def _spread(values, distance, scale):
    """`values / distance` of the highest level, rounded half to even, without a number beyond 2^24: whole levels.

    Args:
        values: int32 `[B, N]` from 0 to the distance.
        distance: int32 `[B, 1]`.
        scale: of the `ImageType`.
    """
    import tensorflow as tf

    values, distance = tf.cast(values, tf.float32), tf.cast(distance, tf.float32)
    base = 16.0 if scale == 1 else 256.0  # its square is the number of levels, one more than the highest one
    whole, rest = tf.zeros_like(values), values
    for _ in range(2):  # long division of values * base^2
        digit = tf.floor(rest * base / distance)
        whole, rest = whole * base + digit, rest * base - digit * distance
    odd = whole - 2.0 * tf.floor(whole / 2.0)
    return whole - odd + tf.round(odd + (rest - values) / distance)
