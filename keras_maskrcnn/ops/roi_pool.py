"""RoIPool (Girshick, Fast R-CNN, 2015, section 2.1): the maximum over the whole pixels of each bin.

Values and gradients are those of `torchvision.ops.roi_pool`. A box is rounded to whole pixels of its feature map
(`ops.roi.quantised_to_level`); with a width of w pixels, bin p covers the pixels from ⌊p·w/P⌋ to ⌈(p+1)·w/P⌉ - 1, so
that neighbouring bins may share a pixel. Bins are cut at the border of the map, and an empty bin is 0. The gradient of
a bin goes to the pixel with its maximum, of equal ones to the first in row order.

Pixels of a bin are numbered in row order. Both lowerings (`gather_pool` and `backend/tensorflow/roi_pool.py`) visit
them by their numbers, because the sizes of bins are data: a table of all pixels of all bins would need the memory of
the largest one for each.
"""

import typing

from keras import ops

from keras_maskrcnn.ops.roi import flatten_pyramid, pyramid_layout, row_lines


class PixelBins(typing.NamedTuple):
    """Rectangles of pixels in the table of `ops.roi.flatten_pyramid`, int32.

    Attributes:
        first: table row of the first pixel.
        width: pixels per line, at least 1.
        area: pixels; 0 for an empty bin.
        pitch: table rows between adjacent lines.
    """

    first: typing.Any
    width: typing.Any
    area: typing.Any
    pitch: typing.Any

    def pixel(self, number):
        """Table row of the pixel of this number in row order, int32; wrong if the number is not below the area."""
        return self.first + number // self.width * self.pitch + number % self.width


def pixel_bins(boxes, layout, bins):
    """Pixels of every bin.

    Args:
        boxes: `ops.roi.LevelBoxes` of N boxes, rounded to whole pixels.
        layout: int32 `[L, 3]` of `pyramid_layout`.
        bins: int, P.

    Returns:
        `PixelBins` of `[N, P, P]`. Boxes with a corner that is not finite have empty bins.
    """
    size, pitch, origin = (number[..., None] for number in row_lines(boxes.image_index, boxes.levels, layout))
    start, length = boxes.start[..., None], boxes.length[..., None]
    # The rounding of this quotient decides which pixels a bin has. XLA and TensorFlow's graph optimisation replace a
    # division by a constant by a product with its reciprocal, which is rounded differently: so the divisor, P, is
    # computed from the data.
    step = length / ops.maximum(float(bins), -length)
    index = ops.arange(bins, dtype="float32")
    limit = ops.cast(size, "float32")
    low = ops.clip(ops.floor(index * step) + start, 0.0, limit)
    high = ops.clip(ops.ceil((index + 1.0) * step) + start, 0.0, limit)
    finite = ops.all(ops.isfinite(start) & ops.isfinite(length), axis=1, keepdims=True)
    extent = ops.cast(ops.where(finite, ops.maximum(high - low, 0.0), 0.0), "int32")
    low = ops.cast(ops.where(finite, ops.minimum(low, limit - 1.0), 0.0), "int32")
    place = low * pitch + origin
    first = place[:, 0][:, :, None] + place[:, 1][:, None]
    width = ops.broadcast_to(extent[:, 1][:, None], ops.shape(first))
    pitch = ops.broadcast_to(pitch[:, :1], ops.shape(first))
    return PixelBins(first, ops.maximum(width, 1), extent[:, 0][:, :, None] * width, pitch)


def gather_pool(features, boxes, bins):
    """RoIPool with static shapes.

    In step t of a loop every bin reads its pixel t; the loop ends with the largest bin. The memory is a few times that
    of the result.

    Args:
        features: list of `[B, H, W, C]`, any float dtype.
        boxes: `ops.roi.LevelBoxes` of N boxes, rounded to whole pixels.
        bins: int, P.

    Returns:
        `[N, P, P, C]` in the features' dtype.
    """
    table = flatten_pyramid(features)
    found = pixel_bins(boxes, pyramid_layout(features), bins)
    channels = table.shape[-1]
    place = _first_maximum(ops.stop_gradient(table), found) * channels + ops.arange(channels, dtype="int32")
    output = ops.take(ops.reshape(table, (-1,)), place)  # has the gradient of the maximum
    return ops.cast(ops.where(found.area[..., None] > 0, output, 0.0), features[0].dtype)


def _first_maximum(table, bins):
    """Table row of the first maximum of each bin and channel: int32 `[N, P, P, C]` from `[pixels, C]`."""
    largest = ops.max(ops.concatenate([ops.reshape(bins.area, (-1,)), ops.zeros(1, "int32")]))

    def step(number, best, place):
        candidate = bins.pixel(number)
        # Beyond the area the place may be outside of the table.
        value = ops.take(table, ops.where(number < bins.area, candidate, bins.first), axis=0)
        larger = value > best
        return number + 1, ops.where(larger, value, best), ops.where(larger, candidate[..., None], place)

    best = ops.take(table, bins.first, axis=0)
    place = bins.first[..., None] + ops.zeros(ops.shape(best), "int32")
    start = (ops.ones((), "int32"), best, place)
    return ops.while_loop(lambda number, *_: number < largest, step, start)[2]
