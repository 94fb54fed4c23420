"""RoIAlign: the level that each box is pooled from, the pixels that each sample reads, and their weights.

All lowerings share this code (the gather below, the sparse matrix and `tf.image` in `backend/tensorflow/`); they differ
only in how they multiply and add.

**Samples.** A box on a feature map of stride `s` is divided into P×P bins, and a bin is the mean of S×S bilinear
samples. With `x1, x2 = box / s` (minus half a pixel when `aligned`), `w = x2 - x1` and bins of `w / P`, sample i of bin
p is at

    x = x1 + p · w/P + (i + 1/2) · w/(P·S),        i = 0 … S-1,  p = 0 … P-1

where the value of pixel k is at x = k. Without `aligned`, w and h are at least 1. He et al., Mask R-CNN (2017),
section 3. The border rule is that of torchvision.ops.roi_align: a sample more than one pixel outside the map
(x < -1 or x > W) is 0, all others are clamped to [0, W-1].

**Scattered samples.** Instead of the grid, each of the S·S samples of a bin may have its own position
x1 + (p + u)·w/P with u in [0, 1), and likewise along y. With u uniformly random, the expectation of a bin is the
average of the interpolated map over the bin, which the grid estimates by the midpoint rule. The border rule is the
same.
"""

from keras import ops


def assign_levels(boxes, min_level=2, max_level=5, canonical_size=224, canonical_level=4):
    """Level of the feature pyramid that each box is pooled from.

    Lin et al., Feature Pyramid Networks (2017), equation 1: k = ⌊k0 + log2(√(w·h) / 224)⌋, clamped to the existing
    levels. As in torchvision, 1e-6 is added inside the floor, so that rounding does not move a box of exactly 112
    pixels to the level below.

    Args:
        boxes: float `[..., 4]`, x1, y1, x2, y2 in input pixels.
        min_level: int, finest level (2 for P2, stride 4).
        max_level: int, coarsest level.
        canonical_size: √area in pixels of a box of level `canonical_level`.
        canonical_level: int, k0.

    Returns:
        int32 `[...]` in `min_level … max_level`; boxes without area get `min_level`.
    """
    boxes = ops.cast(boxes, "float32")
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    size = ops.sqrt(ops.where(area > 0, area, 1.0))
    level = ops.floor(canonical_level + ops.log2(size / canonical_size) + 1e-6)
    level = ops.where(area > 0, ops.clip(level, min_level, max_level), float(min_level))
    return ops.cast(level, "int32")


def flatten_pyramid(features):
    """Concatenates the pixels of all levels and images into one table.

    Args:
        features: list of `[B, H, W, C]`, one per level, any float dtype.

    Returns:
        Table float32 `[Σ B·H·W, C]`, in the order level, image, row, column. The gradient of a pixel, a sum over all
        boxes around it, is also accumulated in float32.
    """
    channels = features[0].shape[-1]
    tables = [ops.cast(ops.reshape(feature, (-1, channels)), "float32") for feature in features]
    # The outer reshape only affects the gradient: it makes TensorFlow convert the gather's gradient to a dense tensor
    # here. Otherwise the gradient of the concatenation would filter all taps for every level, which takes most of the
    # compile time under XLA.
    return ops.reshape(ops.concatenate(tables, axis=0), (-1, channels))


def pyramid_layout(features):
    """Position of each level in the table of `flatten_pyramid`.

    Args:
        features: list of `[B, H, W, C]`.

    Returns:
        int32 `[L, 3]`: height, width, and table row of the first pixel of each level.
    """
    layout, first = [], 0
    for feature in features:
        batch, height, width = ops.shape(feature)[:3]
        layout.append(ops.stack([ops.cast(number, "int32") for number in (height, width, first)]))
        first = first + batch * height * width
    return ops.stack(layout)


def box_to_level(boxes, stride, aligned):
    """Boxes in pixels of their feature map.

    Args:
        boxes: float32 `[N, 4]`, x1, y1, x2, y2 in input pixels.
        stride: number, or float32 `[N, 1]`: input pixels per feature pixel.
        aligned: bool. True: pixel values are at pixel centres (half a pixel is subtracted), and boxes may be smaller
            than one pixel. False: the older convention, with sides of at least one pixel.

    Returns:
        `(start, length)`, each float32 `[N, 2]` as (y, x), in feature pixels.
    """
    boxes = boxes * (1.0 / stride) - (0.5 if aligned else 0.0)
    start = ops.flip(boxes[:, :2], axis=1)
    length = ops.flip(boxes[:, 2:], axis=1) - start
    return start, length if aligned else ops.maximum(length, 1.0)


def axis_taps(start, length, size, bins, samples):
    """The two pixels that each sample reads along one axis, and their weights.

    Args:
        start: float32 `[...]`, first coordinate of the box in feature pixels.
        length: float32 `[...]`, its extent.
        size: int32 `[...]`, pixels of the map along this axis.
        bins: int, P.
        samples: int, S, samples per bin.

    Returns:
        `(pixels, weights)`, each `[..., P, 2S]`: int32 in `[0, size)`, and float32, 0 for samples outside the map.
    """
    step = (length / bins)[..., None, None]
    bin_index = ops.arange(bins, dtype="float32")[:, None]
    sample = ops.arange(samples, dtype="float32") + 0.5
    at = start[..., None, None] + bin_index * step + sample * step / samples
    return line_taps(at, size[..., None, None])


def line_taps(at, size):
    """The two neighbouring pixels of each position on a line, and their weights; applies the border rule.

    Args:
        at: float32 `[..., S]`, coordinates in feature pixels; may be NaN.
        size: int32, length of the line in pixels, broadcastable with `at`.

    Returns:
        `(pixels, weights)`, each `[..., 2S]`, the S lower pixels before the S upper ones: int32 in `[0, size)`, and
        float32, 0 for positions outside.
    """
    limit = ops.cast(size, "float32")
    inside = (at >= -1.0) & (at <= limit)
    # NaN is not inside, so it does not reach the cast to int, whose result would be undefined.
    at = ops.where(inside, ops.clip(at, 0.0, limit - 1.0), 0.0)
    low = ops.floor(at)
    high_weight = at - low
    pixels = ops.concatenate([low, ops.minimum(low + 1.0, limit - 1.0)], axis=-1)
    inside = ops.cast(inside, "float32")
    weights = ops.concatenate([inside * (1.0 - high_weight), inside * high_weight], axis=-1)
    return ops.cast(pixels, "int32"), weights


def row_taps(boxes, image_index, levels, layout, strides, bins, samples, aligned):
    """Taps of all boxes in the table of `flatten_pyramid`.

    Args:
        boxes: float32 `[N, 4]` in input pixels.
        image_index: int32 `[N]`, image of each box.
        levels: int32 `[N]`, index into `strides`.
        layout: int32 `[L, 3]` of `pyramid_layout`.
        strides: sequence of L numbers.
        bins: int, P.
        samples: int, S.
        aligned: bool, see `box_to_level`.

    Returns:
        `(places, weights)`, each `[N, 2, P, 2S]`, with the axes (y, x) second. A place along y (int32) is the table row
        of the first pixel of that line, a place along x is an offset to it. The weights (float32) include the mean over
        the S·S samples: bin (p, q) is the sum over i and j of
        weights[y, p, i] · weights[x, q, j] · table[places[y, p, i] + places[x, q, j]].
    """
    start, length = rows_to_level(boxes, levels, strides, aligned)
    size, pitch, origin = row_lines(image_index, levels, layout)
    pixels, weights = axis_taps(start, length, size, bins, samples)
    return pixels * pitch[..., None, None] + origin[..., None, None], weights / samples


def scattered_taps(boxes, image_index, levels, layout, strides, offsets, aligned):
    """As `row_taps`, for samples at arbitrary positions in their bins.

    Args:
        boxes: float32 `[N, 4]` in input pixels.
        image_index: int32 `[N]`, image of each box.
        levels: int32 `[N]`, index into `strides`.
        layout: int32 `[L, 3]` of `pyramid_layout`.
        strides: sequence of L numbers.
        offsets: float32 `[N, 2, P, P, K]` in [0, 1], axes (y, x) second: position of each of K samples in its bin, as a
            fraction of the bin's height and width.
        aligned: bool, see `box_to_level`.

    Returns:
        `(places, weights)`, each `[N, P, P, 4K]`, four taps per sample: int32 table rows, and float32 weights that
        include the mean over the samples. Bin (p, q) is the sum over t of weights[p, q, t] · table[places[p, q, t]].
    """
    bins, samples = offsets.shape[3:]
    start, length = rows_to_level(boxes, levels, strides, aligned)
    size, pitch, origin = (_per_sample(numbers)[..., None] for numbers in row_lines(image_index, levels, layout))
    at = scattered_positions(start, length, offsets)
    pixels, weights = line_taps(at[..., None], size)
    places = pixels * pitch + origin
    places = places[:, 0, ..., :, None] + places[:, 1, ..., None, :]
    weights = weights[:, 0, ..., :, None] * weights[:, 1, ..., None, :]
    shape = (-1, bins, bins, 4 * samples)
    return ops.reshape(places, shape), ops.reshape(weights, shape) / samples


def scattered_positions(start, length, offsets):
    """Coordinates of samples at arbitrary positions in their bins.

    Args:
        start: float32 `[N, 2]`, first corner (y, x) of the box in feature pixels.
        length: float32 `[N, 2]`, its height and width.
        offsets: float32 `[N, 2, P, P, K]`, see `scattered_taps`.

    Returns:
        float32 `[N, 2, P, P, K]` in feature pixels, axes (y, x) second.
    """
    bins = offsets.shape[3]
    index = ops.arange(bins, dtype="float32")
    bin_index = ops.stack(ops.meshgrid(index, index, indexing="ij"))[..., None]
    return _per_sample(start) + (bin_index + offsets) * _per_sample(length / bins)


def rows_to_level(boxes, levels, strides, aligned):
    """`box_to_level` for boxes of several levels.

    Args:
        boxes: float32 `[N, 4]` in input pixels.
        levels: int32 `[N]`, index into `strides`.
        strides: sequence of L numbers.
        aligned: bool, see `box_to_level`.

    Returns:
        `(start, length)`, each float32 `[N, 2]` as (y, x), in pixels of the level of each box.
    """
    stride = ops.take(ops.convert_to_tensor(strides, "float32"), levels)
    return box_to_level(boxes, stride[:, None], aligned)


def row_lines(image_index, levels, layout):
    """Position in the table of `flatten_pyramid` of the feature map that each box is pooled from.

    Args:
        image_index: int32 `[N]`, image of each box.
        levels: int32 `[N]`, index into `layout`.
        layout: int32 `[L, 3]` of `pyramid_layout`.

    Returns:
        `(size, pitch, origin)`, each int32 `[N, 2]` as (y, x): pixels of the map; table rows between adjacent pixels;
        offsets that make the places along y and x add up to a table row.
    """
    layout = ops.take(layout, levels, axis=0)
    size, first = layout[:, :2], layout[:, 2]
    height, width = size[:, 0], size[:, 1]
    pitch = ops.stack([width, ops.ones_like(width)], axis=1)
    origin = ops.stack([first + image_index * height * width, ops.zeros_like(width)], axis=1)
    return size, pitch, origin


def gather_align(features, boxes, image_index, levels, strides, bins, samples, aligned, offsets=None):
    """RoIAlign with static shapes: a weighted sum of gathers from the table of pixels.

    Args:
        features: list of `[B, H, W, C]`, any float dtype.
        boxes: float32 `[N, 4]` in input pixels.
        image_index: int32 `[N]`.
        levels: int32 `[N]`, index into `features`.
        strides: sequence of numbers, one per level.
        bins: int, P.
        samples: int, S.
        aligned: bool, see `box_to_level`.
        offsets: float32 `[N, 2, P, P, S·S]`, see `scattered_taps`; None for the regular grid.

    Returns:
        `[N, P, P, C]` in the features' dtype.
    """
    table, layout = flatten_pyramid(features), pyramid_layout(features)
    if offsets is None:
        groups = _by_line(*row_taps(boxes, image_index, levels, layout, strides, bins, samples, aligned))
    else:
        groups = _by_sample(*scattered_taps(boxes, image_index, levels, layout, strides, offsets, aligned))
    total = 0.0
    # In groups: where XLA does not fuse the sum, all taps at once would take that many times the memory of the result.
    for places, weights in groups:
        total = total + ops.sum(ops.take(table, places, axis=0) * weights[..., None], axis=3)
    return ops.cast(total, features[0].dtype)


def _by_line(places, weights):
    """The taps of `row_taps` in groups of one line of pixels: places and weights `[N, P, P, 2S]`."""
    for line in range(places.shape[-1]):
        yield (
            places[:, 0, :, None, line, None] + places[:, 1, None],
            weights[:, 0, :, None, line, None] * weights[:, 1, None],
        )


def _by_sample(places, weights):
    """The taps of `scattered_taps` in groups of the four of one sample: places and weights `[N, P, P, 4]`."""
    for first in range(0, places.shape[-1], 4):
        yield places[..., first : first + 4], weights[..., first : first + 4]


def _per_sample(numbers):
    """`[N, 2]` with axes for bins and samples added: `[N, 2, 1, 1, 1]`."""
    return numbers[..., None, None, None]
