"""Instance masks: targets of the mask head, and pasting of predicted masks into the image.

A mask is a small square grid inside its box: coverage 0…255 for ground truth, probabilities for predictions. Only the
final threshold rounds to whole pixels.
"""

import concurrent.futures
import os

import numpy as np
from keras import ops

# Number of multiplications up to which OpenBLAS computes a matrix product on one thread. Its own threads would take
# longer to synchronise than a tile takes to compute.
SMALL_PRODUCT = 2**18
TILES_AT_ONCE = 10  # per mask; fits the CPU cache between product and comparison
PIXELS_PER_THREAD = 2**21  # minimum work per thread; for less, starting the thread takes longer


def mask_targets(masks, mask_boxes, rois, size):
    """Mask targets on the output grid of the mask head.

    The target of a cell is the fraction of the cell that the instance covers: an exact area integral over the
    ground-truth mask, computed separately along x and y. Cells outside the ground-truth box are 0.

    Args:
        masks: `[R, M, M]`, coverage inside the ground-truth box, any dtype, 0…255.
        mask_boxes: float32 `[R, 4]`, the ground-truth boxes.
        rois: float32 `[R, 4]`, the input boxes of the mask head; or `[1, 4]`, one box for all masks.
        size: output cells per side, or (rows, columns).

    Returns:
        float32 `[R, size, size]` in [0, 1].
    """
    cells = masks.shape[-1]
    rows, columns = size if isinstance(size, tuple) else (size, size)
    across = _coverage(rois[:, 0], rois[:, 2], mask_boxes[:, 0], mask_boxes[:, 2], columns, cells)
    down = _coverage(rois[:, 1], rois[:, 3], mask_boxes[:, 1], mask_boxes[:, 3], rows, cells)
    rows = ops.matmul(down, ops.cast(masks, "float32"))
    return ops.matmul(rows, ops.transpose(across, (0, 2, 1))) / 255.0


def _coverage(start, end, mask_start, mask_end, size, cells):
    """Fraction of each of `size` bins of [start, end] that each of `cells` mask cells covers: `[R, size, cells]`."""
    scale = cells / ops.maximum(mask_end - mask_start, 1e-3)
    bin_size = ops.maximum(end - start, 1e-3) / size
    left = ((start - mask_start)[:, None] + bin_size[:, None] * np.arange(size, dtype="float32")) * scale[:, None]
    right = left + (bin_size * scale)[:, None]
    cell = np.arange(cells, dtype="float32")
    shared = ops.minimum(right[:, :, None], cell + 1) - ops.maximum(left[:, :, None], cell)
    # Far from the mask an empty box has `left == right` in float32; the maximum avoids 0 / 0.
    return ops.maximum(shared, 0.0) / ops.maximum(right - left, 1e-9)[:, :, None]


def sampled_mask_targets(masks, index, rois, size):
    """Mask targets of torchvision: RoIAlign of the full mask with adaptive sampling.

    A bin of h pixels is the mean of ⌈h⌉ bilinear samples along each axis (`torchvision.ops.roi_align` with its default
    `sampling_ratio=-1`, as called by `project_masks_on_boxes` in `models/detection/roi_heads.py`). The means along y
    and x are separable, so each region is two matrix products.

    Args:
        masks: `[N, H, W]`, masks of the full canvas, any dtype, 0…255.
        index: int32 `[R]`, the mask of each region.
        rois: float32 `[R, 4]`, the input boxes of the mask head, not larger than the canvas.
        size: output cells per side.

    Returns:
        float32 `[R, size, size]` in [0, 1].
    """
    height, width = masks.shape[1:]

    def one(region):
        row, (x1, y1, x2, y2) = region[0], ops.unstack(region[1], 4)
        mask = ops.cast(ops.take(masks, row, axis=0), "float32") / 255.0
        down, across = _bin_means(y1, y2, size, height), _bin_means(x1, x2, size, width)
        return ops.matmul(ops.matmul(down, mask), ops.transpose(across))

    # One region at a time: the weights of all samples of all regions would take gigabytes.
    return ops.map(one, (ops.cast(index, "int32"), ops.cast(rois, "float32")))


def _bin_means(start, end, size, pixels):
    """Weight of each pixel of an axis in each bin of [start, end]: float32 `[size, pixels]`."""
    bin_size = ops.maximum(end - start, 1.0) / size
    longest = -(-pixels // size) + 1
    count = ops.clip(ops.ceil(bin_size), 1.0, float(longest))
    sample = np.arange(longest, dtype="float32")
    position = start + bin_size * (np.arange(size, dtype="float32")[:, None] + (sample + 0.5) / count)
    used = ops.logical_and(sample < count, ops.logical_and(position >= -1, position <= pixels))
    position = ops.clip(position, 0.0, pixels - 1.0)[..., None]
    weights = ops.maximum(1 - ops.abs(position - np.arange(pixels, dtype="float32")), 0.0)
    return ops.sum(ops.where(used[..., None], weights, 0.0), axis=1) / count


def whole_pixel_boxes(boxes, cells):
    """Boxes into which torchvision pastes masks.

    torchvision's `paste_masks_in_image` pads a mask by one empty cell on each side, enlarges the box accordingly and
    truncates its corners to integers, last pixel included. The boxes returned here are those of the mask without the
    padding.

    Args:
        boxes: float32 array `[n, 4]` in pixels of the image.
        cells: mask cells per side.

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
    """Binary masks of the full image from mask probabilities inside boxes.

    Each pixel that overlaps the box samples the mask bilinearly at the pixel's centre. Beyond the outermost cell
    centres the mask falls linearly to zero, so that a mask of ones is 0.5 on the edges of the box (less near the
    corners). Only the rows and columns that overlap a box are computed.

    Args:
        masks: float32 array `[n, m, m]`, probabilities.
        boxes: float32 array `[n, 4]` in pixels of the image.
        image_size: (height, width).
        threshold: minimum probability of a mask pixel.
        how: "continuous", or "whole_pixels" for torchvision's rule, see `whole_pixel_boxes`.

    Returns:
        bool NumPy array `[n, height, width]`.
    """
    return pasted(*_sampling(masks, boxes, image_size, how), image_size, threshold)


def paste_crops(masks, boxes, image_size, threshold=0.5, how="continuous", keep=lambda left, top, mask: mask):
    """`paste` without the parts of the image outside the boxes.

    Args:
        masks: as for `paste`.
        boxes: as for `paste`.
        image_size: as for `paste`.
        threshold: as for `paste`.
        how: as for `paste`.
        keep: function of left, top and the mask bool `[h, w]` of an object; with one that packs the mask, few unpacked
            ones are in memory at a time. It is called in threads.

    Returns:
        list of n results of `keep`.
    """
    return pasted_crops(*_sampling(masks, boxes, image_size, how), threshold, keep)


def pasted(masks, down, across, image_size, threshold):
    """Binary masks of the full image from masks of any grids.

    Args:
        masks: n float32 arrays `[h, w]`, the cells that the pixels are interpolated from.
        down: for each mask, the slice of its pixels along y and their weights float32 `[pixels, h]`.
        across: the same along x.
        image_size: (height, width).
        threshold: minimum probability of a mask pixel.

    Returns:
        bool NumPy array `[n, height, width]`.
    """
    found = np.zeros((len(masks), *image_size), bool)

    def one(out, mask, down, across):
        _paste_one(out[down[0], across[0]], mask, down[1], across[1], threshold)

    _each(one, found, masks, down, across)
    return found


def pasted_crops(masks, down, across, threshold, keep):
    """`pasted` without the rest of the image: list of n results of `keep`, see `paste_crops`."""

    def one(mask, down, across):
        (rows, down), (columns, across) = down, across
        crop = np.zeros((len(down), len(across)), bool)
        _paste_one(crop, mask, down, across, threshold)
        return keep(int(columns.start), int(rows.start), crop)

    return _each(one, masks, down, across)


def resample(masks, boxes, box):
    """Mask probabilities inside boxes, on the grid of another box; sampled as by `paste`, zero outside.

    Args:
        masks: float32 array `[n, m, m]`, probabilities.
        boxes: float32 array `[n, 4]`.
        box: float32 array `[4]`.

    Returns:
        float32 array `[n, m, m]`.
    """
    cells = masks.shape[-1]
    grid = (np.arange(cells, dtype="float32") + 0.5) / cells

    def weights(axis):
        start, end = boxes[:, axis, None], boxes[:, axis + 2, None]
        centres = box[axis] + grid * (box[axis + 2] - box[axis])
        position = (centres - start) / np.maximum(end - start, 1e-3) * cells - 0.5
        return np.maximum(1 - np.abs(position[..., None] - np.arange(cells, dtype="float32")), 0)

    return weights(1) @ masks @ weights(0).transpose(0, 2, 1)


def _sampling(masks, boxes, image_size, how):
    """The masks, and for each its pixels and weights along y and along x, see `_bilinear`."""
    masks, boxes = np.asarray(masks, "float32"), np.asarray(boxes, "float32")
    height, width = image_size
    if how == "whole_pixels":
        boxes = whole_pixel_boxes(boxes, masks.shape[-1])
    down = _bilinear(boxes[:, 1], boxes[:, 3], height, masks.shape[-1])
    across = _bilinear(boxes[:, 0], boxes[:, 2], width, masks.shape[-1])
    return masks, down, across


def _each(one, *arguments):
    """Results of a function for each mask, whose last two arguments are from `_sampling`; large ones in threads."""
    *_, down, across = arguments
    pixels = sum(len(rows) * len(columns) for (_, rows), (_, columns) in zip(down, across, strict=True))
    threads = min(os.cpu_count(), pixels // PIXELS_PER_THREAD)
    if threads <= 1:
        return list(map(one, *arguments))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, *arguments))


def _paste_one(target, mask, down, across, threshold):
    """Writes a mask `[m, m]` into `target`, bool `[height, width]`, in tiles of rows, by weights along y and x."""
    if not target.size:
        return
    across = np.ascontiguousarray(across.T)
    height = min(max(SMALL_PRODUCT // across.size, 1), len(down))
    tiles = np.zeros((-(-len(down) // height), height, len(mask)), "float32")
    tiles.reshape(-1, len(mask))[: len(down)] = down
    tiles = tiles @ mask
    for start in range(0, len(tiles), TILES_AT_ONCE):
        values = (tiles[start : start + TILES_AT_ONCE] @ across).reshape(-1, across.shape[1])
        part = target[start * height : (start + TILES_AT_ONCE) * height]
        np.greater_equal(values[: len(part)], threshold, out=part)


def _bilinear(start, end, pixels, cells):
    """Pixels of an axis that each of n boxes overlaps, and their interpolation weights between the cells of its mask.

    Args:
        start: float32 `[n]`.
        end: float32 `[n]`.
        pixels: length of the axis.
        cells: mask cells along the axis.

    Returns:
        list of n pairs: slice of the pixels, and their bilinear weights, float32 `[pixels in the slice, cells]`.
    """
    first = np.clip(np.floor(start), 0, pixels).astype(int)
    last = np.maximum(np.clip(np.ceil(end), 0, pixels).astype(int), first)
    rows = np.cumsum(last - first)  # end of each box's rows in `weights`
    box = np.repeat(np.arange(len(start)), last - first)
    centres = (np.arange(len(box)) + (last - rows)[box]).astype("float32") + 0.5
    position = (centres - start[box]) / np.maximum(end - start, 1e-3)[box] * cells - 0.5
    before = np.clip(np.floor(position), -1, cells - 1)
    weights = np.zeros((len(box), cells + 2), "float32")  # with one padding cell at each end
    for cell in (before, before + 1):
        weights[np.arange(len(box)), cell.astype(int) + 1] = np.maximum(1 - np.abs(position - cell), 0)
    return [(slice(i, j), weights[row - j + i : row, 1:-1]) for i, j, row in zip(first, last, rows, strict=True)]
