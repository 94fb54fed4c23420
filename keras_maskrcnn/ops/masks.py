"""Instance masks: targets for the mask head, and pasting predictions onto the picture.

A mask travels as a small square inside its own box, both on the way in (ground truth, coverage 0…255) and on the way
out (probabilities). Nothing is ever rounded to whole pixels before the final threshold.
"""

import numpy as np
from keras import ops


def mask_targets(masks, mask_boxes, rois, size):
    """What the mask head should say in each cell of its output grid.

    The target of a cell is the share of the cell that the instance covers: an exact area integral over the
    ground-truth mask, taken along x and y separately. Cells outside the ground-truth box are 0.

    Args:
        masks: `[R, M, M]`, coverage inside the ground-truth box, any dtype, 0…255.
        mask_boxes: float32 `[R, 4]`, those ground-truth boxes.
        rois: float32 `[R, 4]`, the boxes that the mask head looks at.
        size: cells a side of the head's output.

    Returns:
        float32 `[R, size, size]` in [0, 1].
    """
    cells = masks.shape[-1]
    across = _coverage(rois[:, 0], rois[:, 2], mask_boxes[:, 0], mask_boxes[:, 2], size, cells)
    down = _coverage(rois[:, 1], rois[:, 3], mask_boxes[:, 1], mask_boxes[:, 3], size, cells)
    rows = ops.matmul(down, ops.cast(masks, "float32"))
    return ops.matmul(rows, ops.transpose(across, (0, 2, 1))) / 255.0


def _coverage(start, end, mask_start, mask_end, size, cells):
    """Share of each of `size` bins of [start, end] that each of `cells` mask cells fills: `[R, size, cells]`."""
    scale = cells / ops.maximum(mask_end - mask_start, 1e-3)
    bin_size = ops.maximum(end - start, 1e-3) / size
    left = ((start - mask_start)[:, None] + bin_size[:, None] * np.arange(size, dtype="float32")) * scale[:, None]
    right = left + (bin_size * scale)[:, None]
    cell = np.arange(cells, dtype="float32")
    shared = ops.minimum(right[:, :, None], cell + 1) - ops.maximum(left[:, :, None], cell)
    # Far from the mask an empty box has `left == right` in float32: its bins fill nothing, and 0 / 0 must not say NaN.
    return ops.maximum(shared, 0.0) / ops.maximum(right - left, 1e-9)[:, :, None]


def paste(masks, boxes, image_size, threshold=0.5):
    """Binary masks of the whole image from mask probabilities inside boxes.

    Every pixel that the box touches samples the mask bilinearly at the exact position of its centre; beyond the
    outermost cell centres the mask fades to zero, so that a full mask has 0.5 on the box's edges (and less towards its
    corners). Only the rows and columns that a box touches are computed.

    Args:
        masks: float32 array `[n, m, m]`, probabilities.
        boxes: float32 array `[n, 4]` in pixels of the image.
        image_size: (height, width).
        threshold: lowest probability of a mask pixel.

    Returns:
        bool NumPy array `[n, height, width]`.
    """
    masks, boxes = np.asarray(masks, "float32"), np.asarray(boxes, "float32")
    height, width = image_size
    pasted = np.zeros((len(masks), height, width), bool)
    for mask, (x1, y1, x2, y2), out in zip(masks, boxes, pasted, strict=True):
        rows, down = _bilinear(y1, y2, height, len(mask))
        columns, across = _bilinear(x1, x2, width, len(mask))
        out[rows, columns] = down @ mask @ across.T >= threshold
    return pasted


def _bilinear(start, end, pixels, cells):
    """Slice of the pixels that [start, end] touches and the bilinear weights `[pixels, cells]` of their centres."""
    first, last = max(int(np.floor(start)), 0), min(int(np.ceil(end)), pixels)
    centres = np.arange(first, max(last, first), dtype="float32") + 0.5
    position = (centres - start) / max(end - start, 1e-3) * cells - 0.5
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(cells, dtype="float32")), 0)
    return slice(first, max(last, first)), weights.astype("float32")
