"""Instance masks: targets for the mask head, and pasting predictions onto the picture.

A mask travels as a small square inside its own box, both on the way in (ground truth, coverage 0…255) and on the way
out (probabilities). Nothing is ever rounded to whole pixels before the final threshold.
"""

import concurrent.futures
import os

import numpy as np
from keras import ops

# Multiplications of a matrix product so small that OpenBLAS does not share it among threads of its own: those wait for
# each other, and for whatever else runs, longer than a tile takes.
SMALL_PRODUCT = 2**18
TILES_AT_ONCE = 10  # of a mask, what stays in the processor's cache until it is compared
PIXELS_A_THREAD = 2**21  # a thread for less costs more than it saves


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


def sampled_mask_targets(masks, index, rois, size):
    """Mask targets as torchvision takes them: RoIAlign of the whole mask, with as many samples a bin as it has pixels.

    A bin of h pixels is the mean of ⌈h⌉ bilinear samples along each axis (`torchvision.ops.roi_align` with its default
    `sampling_ratio=-1`, as `project_masks_on_boxes` in its `models/detection/roi_heads.py` calls it). The means along y
    and x separate, so each region is two matrix products.

    Args:
        masks: `[N, H, W]`, masks of whole canvases, any dtype, 0…255.
        index: int32 `[R]`, the mask of each region.
        rois: float32 `[R, 4]`, the boxes that the mask head looks at, no side longer than the canvas's.
        size: cells a side of the head's output.

    Returns:
        float32 `[R, size, size]` in [0, 1].
    """
    height, width = masks.shape[1:]

    def one(region):
        row, (x1, y1, x2, y2) = region[0], ops.unstack(region[1], 4)
        mask = ops.cast(ops.take(masks, row, axis=0), "float32") / 255.0
        down, across = _bin_means(y1, y2, size, height), _bin_means(x1, x2, size, width)
        return ops.matmul(ops.matmul(down, mask), ops.transpose(across))

    # One region at a time: the weights of all samples at once would fill gigabytes.
    return ops.map(one, (ops.cast(index, "int32"), ops.cast(rois, "float32")))


def _bin_means(start, end, size, pixels):
    """What each pixel of an axis contributes to each bin of [start, end]: float32 `[size, pixels]`."""
    bin_size = ops.maximum(end - start, 1.0) / size
    most = -(-pixels // size) + 1
    count = ops.clip(ops.ceil(bin_size), 1.0, float(most))
    sample = np.arange(most, dtype="float32")
    position = start + bin_size * (np.arange(size, dtype="float32")[:, None] + (sample + 0.5) / count)
    used = ops.logical_and(sample < count, ops.logical_and(position >= -1, position <= pixels))
    position = ops.clip(position, 0.0, pixels - 1.0)[..., None]
    weights = ops.maximum(1 - ops.abs(position - np.arange(pixels, dtype="float32")), 0.0)
    return ops.sum(ops.where(used[..., None], weights, 0.0), axis=1) / count


def whole_pixel_boxes(boxes, cells):
    """Boxes into which torchvision pastes masks: the mask with a ring of empty cells fills whole pixels.

    torchvision's `paste_masks_in_image` puts one empty cell around a mask, enlarges the box likewise, cuts its corners
    down to integers and lets the last pixel belong to it. What is returned here is the place of the mask without the
    ring.

    Args:
        boxes: float32 array `[n, 4]` in pixels of the image.
        cells: cells a side of the masks.

    Returns:
        float32 array `[n, 4]`.
    """
    boxes = np.asarray(boxes, "float32")
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * np.float32((cells + 2) / cells)
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    first, last = np.trunc(centre - half), np.trunc(centre + half) + 1
    ring = np.maximum(last - first, 1) / (cells + 2)
    return np.concatenate([first + ring, last - ring], axis=1).astype("float32")


def paste(masks, boxes, image_size, threshold=0.5, how="continuous"):
    """Binary masks of the whole image from mask probabilities inside boxes.

    Every pixel that the box touches samples the mask bilinearly at the exact position of its centre; beyond the
    outermost cell centres the mask fades to zero, so that a full mask has 0.5 on the box's edges (and less towards its
    corners). Only the rows and columns that a box touches are computed.

    Args:
        masks: float32 array `[n, m, m]`, probabilities.
        boxes: float32 array `[n, 4]` in pixels of the image.
        image_size: (height, width).
        threshold: lowest probability of a mask pixel.
        how: "continuous", or "whole_pixels" for torchvision's way, see `whole_pixel_boxes`.

    Returns:
        bool NumPy array `[n, height, width]`.
    """
    masks, boxes = np.asarray(masks, "float32"), np.asarray(boxes, "float32")
    height, width = image_size
    if how == "whole_pixels":
        boxes = whole_pixel_boxes(boxes, masks.shape[-1])
    pasted = np.zeros((len(masks), height, width), bool)
    down = _bilinear(boxes[:, 1], boxes[:, 3], height, masks.shape[-1])
    across = _bilinear(boxes[:, 0], boxes[:, 2], width, masks.shape[-1])
    jobs = [job for job in zip(pasted, masks, down, across, strict=True) if job[2][1].size and job[3][1].size]
    pixels = sum(len(rows) * len(columns) for _, _, (_, rows), (_, columns) in jobs)
    threads = min(os.cpu_count(), pixels // PIXELS_A_THREAD)
    if threads > 1:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda job: _paste_one(*job, threshold), jobs))
    else:
        for job in jobs:
            _paste_one(*job, threshold)
    return pasted


def _paste_one(out, mask, down, across, threshold):
    """Writes a mask `[m, m]` into `out`, bool `[height, width]`, by tiles of rows, where `_bilinear` says."""
    (rows, down), (columns, across) = down, across
    target, across = out[rows, columns], np.ascontiguousarray(across.T)
    height = min(max(SMALL_PRODUCT // across.size, 1), len(down))
    tiles = np.zeros((-(-len(down) // height), height, len(mask)), "float32")
    tiles.reshape(-1, len(mask))[: len(down)] = down
    tiles = tiles @ mask
    for start in range(0, len(tiles), TILES_AT_ONCE):
        values = (tiles[start : start + TILES_AT_ONCE] @ across).reshape(-1, across.shape[1])
        part = target[start * height : (start + TILES_AT_ONCE) * height]
        np.greater_equal(values[: len(part)], threshold, out=part)


def _bilinear(start, end, pixels, cells):
    """Which pixels of an axis each of n boxes touches, and how their centres lie between the cells of its mask.

    Args:
        start: float32 `[n]`.
        end: float32 `[n]`.
        pixels: length of the axis.
        cells: cells of a mask along it.

    Returns:
        list of n pairs: slice of the pixels, and their bilinear weights, float32 `[pixels touched, cells]`.
    """
    first = np.clip(np.floor(start), 0, pixels).astype(int)
    last = np.maximum(np.clip(np.ceil(end), 0, pixels).astype(int), first)
    rows = np.cumsum(last - first)  # of the weights: those of a box end there
    box = np.repeat(np.arange(len(start)), last - first)
    centres = (np.arange(len(box)) + (last - rows)[box]).astype("float32") + 0.5
    position = (centres - start[box]) / np.maximum(end - start, 1e-3)[box] * cells - 0.5
    before = np.clip(np.floor(position), -1, cells - 1)
    weights = np.zeros((len(box), cells + 2), "float32")  # with a cell before the first, and one after the last
    for cell in (before, before + 1):
        weights[np.arange(len(box)), cell.astype(int) + 1] = np.maximum(1 - np.abs(position - cell), 0)
    return [(slice(i, j), weights[row - j + i : row, 1:-1]) for i, j, row in zip(first, last, rows, strict=True)]
