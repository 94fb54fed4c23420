"""RoIAlign: the pixels that each sample reads, and their weights. RoIWarp is the same for boxes of whole pixels.

All lowerings share this code (the gather below, the sparse matrix and `tf.image` in `backend/tensorflow/`); they differ
only in how they multiply and add.

**Samples.** A box on a feature map of stride `s` is divided into P×P bins, and a bin is the mean (or the maximum) of
S×S bilinear samples. With `x1, x2 = box / s` (minus half a pixel when `aligned`), `w = x2 - x1` and bins of `w / P`,
sample i of bin p is at

    x = x1 + p · w/P + (i + 1/2) · w/(P·S),        i = 0 … S-1,  p = 0 … P-1

where the value of pixel k is at x = k. Without `aligned`, w and h are at least 1. He et al., Mask R-CNN (2017),
section 3. The border rule is that of torchvision.ops.roi_align: a sample more than one pixel outside the map
(x < -1 or x > W) is 0, all others are clamped to [0, W-1].

**Scattered samples.** Instead of the grid, each of the S·S samples of a bin may have its own position
x1 + (p + u)·w/P with u in [0, 1), and likewise along y. With u uniformly random, the expectation of a bin is the
average of the interpolated map over the bin, which the grid estimates by the midpoint rule. The border rule is the
same.
"""

import functools

from keras import ops

from keras_maskrcnn.ops.roi import flatten_pyramid, pyramid_layout, row_lines


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
    # XLA may compute a position twice, for the pixels and for the weights, with different rounding. If only one of them
    # is just below a whole number, the pixels would get the weights of the next pair.
    whole = ops.round(at)
    at = ops.where(ops.abs(at - whole) < 2.0**-14, whole, at)
    low = ops.floor(at)
    high_weight = at - low
    pixels = ops.concatenate([low, ops.minimum(low + 1.0, limit - 1.0)], axis=-1)
    inside = ops.cast(inside, "float32")
    weights = ops.concatenate([inside * (1.0 - high_weight), inside * high_weight], axis=-1)
    return ops.cast(pixels, "int32"), weights


def row_taps(boxes, layout, bins, samples):
    """Taps of all boxes in the table of `flatten_pyramid`.

    Args:
        boxes: `LevelBoxes` of N boxes.
        layout: int32 `[L, 3]` of `pyramid_layout`.
        bins: int, P.
        samples: int, S.

    Returns:
        `(places, weights)`, each `[N, 2, P, 2S]`, with the axes (y, x) second. A place along y (int32) is the table row
        of the first pixel of that line, a place along x is an offset to it. The weights (float32) include the mean over
        the S·S samples: bin (p, q) is the sum over i and j of
        weights[y, p, i] · weights[x, q, j] · table[places[y, p, i] + places[x, q, j]].
    """
    size, pitch, origin = row_lines(boxes.image_index, boxes.levels, layout)
    pixels, weights = axis_taps(boxes.start, boxes.length, size, bins, samples)
    return pixels * pitch[..., None, None] + origin[..., None, None], weights / samples


def scattered_taps(boxes, layout, offsets):
    """As `row_taps`, for samples at arbitrary positions in their bins.

    Args:
        boxes: `LevelBoxes` of N boxes.
        layout: int32 `[L, 3]` of `pyramid_layout`.
        offsets: float32 `[N, 2, P, P, K]` in [0, 1], axes (y, x) second: position of each of K samples in its bin, as a
            fraction of the bin's height and width.

    Returns:
        `(places, weights)`, each `[N, P, P, 4K]`, four taps per sample: int32 table rows, and float32 weights that
        include the mean over the samples. Bin (p, q) is the sum over t of weights[p, q, t] · table[places[p, q, t]].
    """
    bins, samples = offsets.shape[3:]
    lines = row_lines(boxes.image_index, boxes.levels, layout)
    size, pitch, origin = (_per_sample(numbers)[..., None] for numbers in lines)
    at = scattered_positions(boxes.start, boxes.length, offsets)
    pixels, weights = line_taps(at[..., None], size)
    places = pixels * pitch + origin
    places = places[:, 0, ..., :, None] + places[:, 1, ..., None, :]
    weights = weights[:, 0, ..., :, None] * weights[:, 1, ..., None, :]
    shape = (-1, bins, bins, 4 * samples)
    return ops.reshape(places, shape), ops.reshape(weights, shape) / samples


def sample_taps(boxes, layout, bins, samples, offsets=None):
    """Taps of every sample by itself, for a maximum over samples instead of the mean.

    Args:
        boxes: `LevelBoxes` of N boxes.
        layout: int32 `[L, 3]` of `pyramid_layout`.
        bins: int, P.
        samples: int, S.
        offsets: float32 `[N, 2, P, P, S·S]`, see `scattered_taps`; None for the regular grid.

    Returns:
        `(places, weights)`, each `[N, P, P, S·S, 4]`: int32 table rows, and float32 weights of the pixels of a sample.
    """
    count = samples * samples
    if offsets is None:
        places, weights = row_taps(boxes, layout, bins, samples)
        (y, x), (y_weight, x_weight) = _axes_by_sample(places), _axes_by_sample(weights)
        places, weights = y + x, y_weight * x_weight
    else:
        places, weights = scattered_taps(boxes, layout, offsets)
    shape = (-1, bins, bins, count, 4)
    return ops.reshape(places, shape), ops.reshape(weights, shape) * count


def _axes_by_sample(taps):
    """`[N, 2, P, 2S]` of `row_taps` as (y, x), `[N·P·P, S, 1, 2, 1]` and `[N·P·P, 1, S, 1, 2]`: sample, then pixel.

    TensorFlow's kernels broadcast five axes at most.
    """
    bins, samples = taps.shape[2], taps.shape[3] // 2
    taps = ops.swapaxes(ops.reshape(taps, (-1, 2, bins, 2, samples)), 3, 4)
    y = ops.reshape(ops.repeat(taps[:, 0], bins, axis=1), (-1, samples, 1, 2, 1))
    x = ops.reshape(ops.tile(taps[:, 1], (1, bins, 1, 1)), (-1, 1, samples, 1, 2))
    return y, x


def maximum(samples):
    """Elementwise maximum of a sequence of tensors; where several are equal, the first one gets the gradient."""
    return functools.reduce(lambda best, other: ops.where(other > best, other, best), samples)


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


def gather_align(features, boxes, bins, samples, reduce="average", offsets=None):
    """RoIAlign with static shapes: a weighted sum of gathers from the table of pixels.

    Args:
        features: list of `[B, H, W, C]`, any float dtype.
        boxes: `LevelBoxes` of N boxes.
        bins: int, P.
        samples: int, S.
        reduce: "average" or "max" over the S·S samples of a bin.
        offsets: float32 `[N, 2, P, P, S·S]`, see `scattered_taps`; None for the regular grid.

    Returns:
        `[N, P, P, C]` in the features' dtype.
    """
    table, layout = flatten_pyramid(features), pyramid_layout(features)
    if reduce == "max":
        groups = _by_sample(*sample_taps(boxes, layout, bins, samples, offsets))
    elif offsets is None:
        groups = _by_line(*row_taps(boxes, layout, bins, samples))
    else:
        places, weights = scattered_taps(boxes, layout, offsets)
        shape = (-1, bins, bins, samples * samples, 4)
        groups = _by_sample(ops.reshape(places, shape), ops.reshape(weights, shape))
    # In groups: where XLA does not fuse the sum, all taps at once would take that many times the memory of the result.
    parts = (ops.sum(ops.take(table, places, axis=0) * weights[..., None], axis=3) for places, weights in groups)
    return ops.cast(maximum(parts) if reduce == "max" else sum(parts), features[0].dtype)


def _by_line(places, weights):
    """The taps of `row_taps` in groups of one line of pixels: places and weights `[N, P, P, 2S]`."""
    (y, x), (y_weight, x_weight) = ((taps[:, 0], taps[:, 1][:, None]) for taps in (places, weights))
    for line in range(places.shape[-1]):
        # One index at a time: OpenVINO converts an index between new axes to another slice.
        yield y[:, :, line][:, :, None, None] + x, y_weight[:, :, line][:, :, None, None] * x_weight


def _by_sample(places, weights):
    """The taps of `sample_taps` in groups of the four of one sample: places and weights `[N, P, P, 4]`."""
    for sample in range(places.shape[3]):
        yield places[:, :, :, sample], weights[:, :, :, sample]


def _per_sample(numbers):
    """`[N, 2]` with axes for bins and samples added: `[N, 2, 1, 1, 1]`."""
    return numbers[..., None, None, None]
