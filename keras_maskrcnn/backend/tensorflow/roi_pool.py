"""TensorFlow lowering of RoIPool that reads no more pixels than the bins have."""

import tensorflow as tf

from keras_maskrcnn.ops import roi
from keras_maskrcnn.ops.roi_pool import PixelBins, pixel_bins

NUMBERS_AT_ONCE = 2**20  # pixels times channels read in one step: 4 MiB, about the size of a processor's cache


def sorted_pool(features, boxes, bins):
    """RoIPool over bins sorted by their number of pixels.

    Bins of nearly equal area are read together, as many at a time as fit `NUMBERS_AT_ONCE`. The gradient reads them a
    second time to find the first maximum, so that inference does not. It has no XLA kernel.

    Args:
        features: list of `[B, H, W, C]`, any float dtype.
        boxes: `ops.roi.LevelBoxes` of N boxes, rounded to whole pixels; N may be 0 or unknown.
        bins: int, P.

    Returns:
        `[N, P, P, C]` in the features' dtype.
    """
    table = roi.flatten_pyramid(features)
    channels = table.shape[-1]
    found = [tf.reshape(numbers, (-1,)) for numbers in pixel_bins(boxes, roi.pyramid_layout(features), bins)]
    order = tf.argsort(found[2], direction="DESCENDING", stable=True)
    ordered = PixelBins(*(tf.gather(numbers, order) for numbers in found))
    back = tf.math.invert_permutation(order)

    @tf.custom_gradient
    def pool(table):
        def gradient(upstream):
            place = _by_area(ordered, channels, tf.int32, lambda pixels: _first_maximum(table, pixels))
            upstream = tf.where(ordered.area[:, None] > 0, tf.gather(upstream, order), 0.0)
            place = tf.reshape(place * channels + tf.range(channels), (-1,))
            total = tf.math.unsorted_segment_sum(tf.reshape(upstream, (-1,)), place, tf.size(table))
            return tf.reshape(total, tf.shape(table))

        best = _by_area(ordered, channels, tf.float32, lambda pixels: tf.reduce_max(tf.gather(table, pixels), axis=1))
        return tf.gather(tf.where(ordered.area[:, None] > 0, best, 0.0), back), gradient

    return tf.cast(tf.reshape(pool(table), (-1, bins, bins, channels)), features[0].dtype)


def _by_area(bins, channels, dtype, function):
    """`function(pixels)`, `[m, C]` from int32 `[m, area]`, for consecutive bins: `[M, C]` from `PixelBins` of `[M]`."""
    count = tf.size(bins.area)

    def step(start, index, parts):
        largest = tf.maximum(bins.area[start], 1)
        end = tf.minimum(start + tf.maximum(NUMBERS_AT_ONCE // (largest * channels), 1), count)
        some = PixelBins(*(numbers[start:end, None] for numbers in bins))
        # Smaller bins repeat their last pixel.
        number = tf.minimum(tf.range(largest), tf.maximum(some.area - 1, 0))
        return end, index + 1, parts.write(index, function(some.pixel(number)))

    parts = tf.TensorArray(dtype, 0, dynamic_size=True, infer_shape=False, element_shape=(None, channels))
    start = tf.zeros((), tf.int32)
    return tf.while_loop(lambda start, *_: start < count, step, (start, start, parts))[2].concat()


def _first_maximum(table, pixels):
    """Table row of the first maximum: int32 `[m, C]` from `[m, area]`."""
    values = tf.gather(table, pixels)
    best = tf.reduce_max(values, axis=1, keepdims=True)
    number = tf.range(tf.shape(pixels)[1])[:, None]
    first = tf.reduce_min(tf.where(values == best, number, tf.int32.max), axis=1)
    return tf.gather(pixels, tf.minimum(first, tf.shape(pixels)[1] - 1), batch_dims=1)
