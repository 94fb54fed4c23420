"""Maps of whole images: enlargement, unpooling, and the class of each pixel from coarser logits."""

import math

import numpy as np
from keras import ops

from keras_maskrcnn.ops.gather import first_maximum


def enlarge(values, factor, method="bilinear"):
    """Enlargement by a whole factor, aligned at the edges: `[B, h, w, C]` to `[B, factor·h, factor·w, C]`.

    Output pixel i has its centre at (i + 0.5) / factor in cells of the input; beyond the outermost cell centres the
    values of the edge cells are used (torch's `interpolate` with `align_corners=False`). Each of the `factor` phases is
    a fixed sum of neighbours, so that heights and widths may be open and XLA compiles the gradient.

    Args:
        values: `[B, h, w, C]`.
        factor: whole number of 1 or more.
        method: "nearest"; "bilinear"; or "bicubic", cubic convolution with a = -0.5 (Keys 1981, equation 15).
    """
    if factor == 1:
        return values
    return _enlarged(_enlarged(values, factor, 1, _TAPS[method]), factor, 2, _TAPS[method])


def _enlarged(values, factor, axis, taps):
    """One axis, 1 or 2, of a map enlarged."""
    weights = [taps((i + 0.5) / factor - 0.5) for i in range(factor)]
    reach = max(abs(offset) for phase in weights for offset in phase)
    cut = [slice(None)] * 4

    def part(array, start, stop):
        return array[tuple([*cut[:axis], slice(start, stop)])]

    edges = [[part(values, *place)] * reach for place in ((0, 1), (-1, None))]
    padded = ops.concatenate([*edges[0], values, *edges[1]], axis=axis)
    phases = []
    for phase in weights:
        terms = [
            weight * part(padded, reach + offset, offset - reach or None) for offset, weight in sorted(phase.items())
        ]
        phases.append(sum(terms[1:], terms[0]))
    batch, height, width = ops.shape(values)[:3]
    sides = [height, width]
    sides[axis - 1] = factor * sides[axis - 1]
    return ops.reshape(ops.stack(phases, axis=axis + 1), (batch, *sides, values.shape[-1]))


def _bilinear(shift):
    """Weights by offset of the neighbours of a position at `shift` from the centre of a cell, -0.5 to 0.5."""
    return {0: 1 - abs(shift), -1 if shift < 0 else 1: abs(shift)}


def _bicubic(shift):
    first = math.floor(shift) - 1
    return {offset: _cubic(abs(offset - shift)) for offset in range(first, first + 4)}


def _cubic(distance, a=-0.5):
    if distance < 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * (distance**3 - 5 * distance**2 + 8 * distance - 4)


_TAPS = {"nearest": lambda shift: {0: 1}, "bilinear": _bilinear, "bicubic": _bicubic}


def resize(values, size):
    """Bilinear resampling to any size, aligned at the edges: `[B, h, w, C]` to `[B, *size, C]`.

    The rule of `enlarge`, without smoothing where the map shrinks. Both axes are products with a matrix of weights, so
    that the gradient is one too: it needs no scatter, and XLA compiles it.

    Args:
        values: float `[B, h, w, C]`.
        size: (height, width), numbers or scalar int32 tensors.
    """
    height, width = ops.shape(values)[1:3]
    channels = values.shape[-1]
    down, across = (ops.cast(_weights(new, old), values.dtype) for new, old in zip(size, (height, width), strict=True))
    rows = ops.matmul(down, ops.reshape(values, (-1, height, width * channels)))
    return ops.matmul(across, ops.reshape(rows, (-1, size[0], width, channels)))


def _weights(new, old):
    """Bilinear weights of `old` cells of an axis in `new` ones: float32 `[new, old]`."""
    step = ops.cast(old, "float32") / ops.cast(new, "float32")
    places = (ops.cast(ops.arange(new), "float32") + 0.5) * step - 0.5
    places = ops.clip(places, 0.0, ops.cast(old, "float32") - 1.0)
    return ops.maximum(1.0 - ops.abs(places[:, None] - ops.cast(ops.arange(old), "float32")), 0.0)


def unpool(values, factor, guide=None):
    """Unpooling: each value in one place of its window of `factor`² pixels, zeros in the others.

    Args:
        values: `[B, h, w, C]`.
        factor: side of the windows.
        guide: `[B, factor·h, factor·w, G]`, whose maximum over a window (of the mean of its channels) is the place, as
            max pooling of it has the index; None for the top left pixel.

    Returns:
        `[B, factor·h, factor·w, C]`.
    """
    batch, height, width = ops.shape(values)[:3]
    if guide is None:
        rows, columns = (ops.arange(factor * side) % factor == 0 for side in (height, width))
        places = ops.logical_and(rows[:, None], columns)[None, :, :, None]
    else:
        windows = ops.reshape(ops.mean(guide, axis=-1), (batch, height, factor, width, factor))
        windows = ops.reshape(ops.transpose(windows, (0, 1, 3, 2, 4)), (batch, height, width, factor**2))
        places = ops.one_hot(ops.argmax(windows, axis=-1), factor**2)
        places = ops.transpose(ops.reshape(places, (batch, height, width, factor, factor)), (0, 1, 3, 2, 4))
        places = ops.reshape(places, (batch, factor * height, factor * width, 1))
    return enlarge(values, factor, "nearest") * ops.cast(places, values.dtype)


def class_map(logits, scale, size):
    """The class of each pixel of an image: the highest of the logits, interpolated as by `enlarge`.

    Only pixels between cells of different classes are interpolated: a mean of vectors whose highest entry is the same
    has its highest entry there too.

    Args:
        logits: float array `[h, w, C]`, cells that begin at the top left of the image and may reach beyond it.
        scale: (x, y), cells per pixel of the image.
        size: (height, width) of the image.

    Returns:
        uint8 NumPy array `[height, width]`, 0…C − 1.
    """
    cells = logits.argmax(axis=-1).astype(np.uint8)
    (top, down), (left, across) = (
        _neighbours(np.arange(side) + 0.5, step, count)
        for side, step, count in zip(size, scale[::-1], cells.shape, strict=True)
    )
    below, right = (np.minimum(low + 1, count - 1) for low, count in zip((top, left), cells.shape, strict=True))
    labels = cells[np.ix_(top, left)]
    corners = [labels, *(cells[np.ix_(*pair)] for pair in ((top, right), (below, left), (below, right)))]
    y, x = np.nonzero(np.logical_or.reduce([corner != labels for corner in corners[1:]]))
    for part in np.array_split(np.arange(len(y)), len(y) // 2**16 + 1):  # bounds the memory
        row, column = y[part], x[part]
        upper, lower = (
            logits[rows[row], left[column]] * (1 - across[column, None])
            + logits[rows[row], right[column]] * across[column, None]
            for rows in (top, below)
        )
        labels[row, column] = (upper * (1 - down[row, None]) + lower * down[row, None]).argmax(axis=-1)
    return labels


def _neighbours(centres, step, count):
    """Cells at or before positions, int, and the weights of the cells after them, float32."""
    places = np.clip(centres * step - 0.5, 0, count - 1)
    low = places.astype(int)
    return low, (places - low).astype(np.float32)


def class_maps(logits, scale, size):
    """`class_map` of a batch as a graph: float `[B, h, w, C]` to int32 `[B, height, width]`.

    Args:
        logits: `[B, h, w, C]`.
        scale: float32 `[2]`, (x, y), cells per pixel of the images.
        size: (height, width) of the images, scalars.
    """
    for axis, step in ((1, scale[1]), (2, scale[0])):
        count = ops.shape(logits)[axis]
        centres = (ops.cast(ops.arange(size[axis - 1]), "float32") + 0.5) * step - 0.5
        places = ops.clip(centres, 0.0, ops.cast(count - 1, "float32"))
        low = ops.cast(places, "int32")
        share = ops.reshape(places - ops.cast(low, "float32"), (-1, 1, 1) if axis == 1 else (-1, 1))
        after = ops.take(logits, ops.minimum(low + 1, count - 1), axis=axis)
        logits = ops.take(logits, low, axis=axis) * (1 - share) + after * share
    return first_maximum(logits, axis=-1)
