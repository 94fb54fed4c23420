"""Maps of whole images: bilinear enlargement, and the class of each pixel from coarser logits."""

import numpy as np
from keras import ops


def enlarge(values, factor):
    """Bilinear enlargement by a whole factor, aligned at the edges: `[B, h, w, C]` to `[B, factor·h, factor·w, C]`.

    Output pixel i has its centre at (i + 0.5) / factor in cells of the input; beyond the outermost cell centres the
    values of the edge cells are used (torch's `interpolate` with `align_corners=False`). Each of the `factor` phases is
    a fixed mean of two neighbours, so that heights and widths may be open and XLA compiles the gradient.

    Args:
        values: `[B, h, w, C]`.
        factor: whole number of 1 or more.
    """
    if factor == 1:
        return values
    return _enlarged(_enlarged(values, factor, 1), factor, 2)


def _enlarged(values, factor, axis):
    """One axis, 1 or 2, of a map enlarged."""
    cut = [slice(None)] * 4

    def part(start, stop):
        return values[tuple([*cut[:axis], slice(start, stop)])]

    before = ops.concatenate([part(0, 1), part(None, -1)], axis=axis)
    after = ops.concatenate([part(1, None), part(-1, None)], axis=axis)
    phases = []
    for i in range(factor):
        shift = (i + 0.5) / factor - 0.5
        neighbour = before if shift < 0 else after
        phases.append((1 - abs(shift)) * values + abs(shift) * neighbour)
    batch, height, width = ops.shape(values)[:3]
    sides = [height, width]
    sides[axis - 1] = factor * sides[axis - 1]
    return ops.reshape(ops.stack(phases, axis=axis + 1), (batch, *sides, values.shape[-1]))


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
    return ops.argmax(logits, axis=-1)
