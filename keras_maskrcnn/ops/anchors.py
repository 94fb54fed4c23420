"""Anchor boxes, one set per pyramid level.

For inputs of a fixed size they are NumPy arrays, constants of the program; for sizes given as scalar tensors they are
tensors.
"""

import numpy as np
from keras import ops


def cell_anchors(sizes, ratios, rounded=False, square=False):
    """Anchors around the origin for one location.

    Each has the area `size²` and the aspect ratio `height / width = ratio`.

    Args:
        sizes: side lengths in pixels.
        ratios: aspect ratios, height over width.
        rounded: whether to round the coordinates to integers, as torchvision's weights require.
        square: whether the height is that of the width, as YOLACT's weights require: `make_priors` in its `yolact.py`
            computes both sides and then overwrites the height (`use_square_anchors`).

    Returns:
        float32 `[len(ratios) * len(sizes), 4]`, ratios outermost (torchvision's order).
    """
    sizes, ratios = np.asarray(sizes, "float32"), np.asarray(ratios, "float32")
    heights = (np.sqrt(ratios)[:, None] * sizes).ravel()
    widths = (1 / np.sqrt(ratios)[:, None] * sizes).ravel()
    heights = widths if square else heights
    anchors = np.stack([-widths, -heights, widths, heights], axis=-1) / 2
    return np.round(anchors) if rounded else anchors


def grid_anchors(height, width, spacing, cell, offset=0.0):
    """Anchors of a feature map: `cell` at every location.

    With symmetric padding, the receptive field at index i of a map with stride s is centred on pixel `i * s`: offset 0.

    Args:
        height: rows of the feature map, int or scalar int32 tensor.
        width: columns of the feature map, likewise.
        spacing: input pixels between locations, a number or (vertical, horizontal).
        cell: float32 `[A, 4]` from `cell_anchors`.
        offset: shift of all centres as a fraction of the spacing.

    Returns:
        float32 `[height * width * A, 4]`, rows outermost, then columns, then the anchors of a cell.
    """
    down, across = spacing if isinstance(spacing, list | tuple) else (spacing, spacing)
    x, y = _centres(width, across, offset), _centres(height, down, offset)
    library = np if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) else ops
    shift = library.stack([*library.meshgrid(x, y)] * 2, axis=-1)
    return library.reshape(shift[:, :, None] + cell, (-1, 4))


def _centres(count, spacing, offset):
    """Coordinates of `count` cells along an axis, float32."""
    if isinstance(count, int | np.integer):
        return (np.arange(count, dtype="float32") + np.float32(offset)) * np.float32(spacing)
    return (ops.cast(ops.arange(count), "float32") + offset) * ops.cast(spacing, "float32")


def pyramid_anchors(
    image_size, strides, sizes, ratios, rounded=False, offset=0.0, spacing="stride", square=False, cells=None
):
    """Anchors of all levels.

    Args:
        image_size: (height, width) of the network's input, numbers or scalar int32 tensors.
        strides: stride of each level, which has `ceil(side / stride)` cells per side unless `cells` says otherwise.
        sizes: one tuple of anchor side lengths per level.
        ratios: aspect ratios (height / width), equal on all levels.
        rounded: see `cell_anchors`.
        offset: see `grid_anchors`.
        spacing: "stride", or "canvas" for `side // cells` along each axis (`AnchorGenerator.forward` in torchvision's
            models/detection/anchor_utils.py); or "cells" for `side / cells`, not rounded (YOLACT).
        square: see `cell_anchors`.
        cells: (rows, columns) of each level, where they are not those of the strides.

    Returns:
        list of float32 `[cells * A, 4]`, one array per level.
    """
    anchors = []
    # Without a negative number: ONNX divides integers towards zero.
    cells = cells or [[(side + stride - 1) // stride for side in image_size] for stride in strides]
    for stride, level_sizes, level in zip(strides, sizes, cells, strict=True):
        apart = stride
        if spacing == "canvas":
            apart = [side // count for side, count in zip(image_size, level, strict=True)]
        elif spacing == "cells":
            apart = [side / count for side, count in zip(image_size, level, strict=True)]
        anchors.append(grid_anchors(*level, apart, cell_anchors(level_sizes, ratios, rounded, square), offset))
    return anchors
