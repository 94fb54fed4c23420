"""Keypoints of regions: targets on a heat map, and positions from predicted heat maps.

A heat map has m × m cells, which divide the region into equal parts; cell i of an axis covers the share i/m … (i+1)/m.
Source: `keypoints_to_heatmap` and `heatmaps_to_keypoints` in torchvision's models/detection/roi_heads.py.
"""

import numpy as np
from keras import ops

from keras_maskrcnn.ops.gather import first_maximum

CUBIC = -0.75  # the free parameter of the cubic kernel (Keys 1981), as in torch's bicubic interpolation
# The search of `decode`: samples per axis of the first pass, cells of the grid of blocks whose best samples are kept,
# number of blocks searched further, and samples of that search on each side of the best one.
SAMPLES, BLOCKS, PEAKS, AROUND = 224, 28, 8, 6


def heatmap_targets(points, rois, size):
    """The cell of each keypoint in the heat map of its region.

    A point on the right or bottom edge of the region belongs to the last cell.

    Args:
        points: float32 `[R, K, 3]`, x, y in pixels of the input, and visibility.
        rois: float32 `[R, 4]`.
        size: cells per side, m.

    Returns:
        (cell, valid): int32 `[R, K]`, row-major index in 0 … m² - 1, 0 where not valid; and bool `[R, K]`, whether the
        point is labelled (visibility above 0) and inside the region.
    """
    start, end = rois[:, None, :2], rois[:, None, 2:]
    place = points[..., :2]
    # An empty region has no cells: its points are on its right edge at most, and the maximum avoids 0 / 0.
    cell = ops.floor((place - start) * (size / ops.maximum(end - start, 1e-6)))
    cell = ops.where(place == end, size - 1.0, cell)
    inside = ops.all(ops.logical_and(cell >= 0, cell < size), axis=-1)
    valid = ops.logical_and(inside, points[..., 2] > 0)
    cell = ops.cast(ops.where(valid[..., None], cell, 0.0), "int32")
    return cell[..., 1] * size + cell[..., 0], valid


def decode(maps, rois):
    """Positions of keypoints: the largest value of each heat map, enlarged to the pixels of its region.

    torchvision enlarges each map to ⌈height⌉ × ⌈width⌉ pixels by bicubic interpolation, and takes the centre of the
    pixel with the largest value. That array has another size in each region. Here all sizes are static: the same
    interpolation is computed at SAMPLES × SAMPLES of these pixels, which are all pixels of a region that is not larger.
    In larger regions the best sample in each of the best PEAKS blocks of the map is a candidate, and the pixels around
    it are computed up to the next samples. The result is torchvision's pixel in regions of up to SAMPLES · AROUND
    pixels per side, except where the largest value is between the samples of a block whose best sample is not among
    the PEAKS best ones. In larger regions every second or third pixel is tried.

    Args:
        maps: float32 `[R, m, m, K]` logits, m a multiple of 4.
        rois: float32 `[R, 4]` in pixels of the input; a side below one pixel counts as one pixel.

    Returns:
        (places, scores): float32 `[R, K, 2]`, x and y in pixels of the input; and float32 `[R, K]`, logits there.
    """
    # One region at a time: the samples of all regions would take gigabytes.
    found = ops.map(_decode_one, (ops.cast(maps, "float32"), ops.cast(rois, "float32")))
    return found[..., :2], found[..., 2]


def _decode_one(region):
    """x, y and logit of the keypoints of one region: maps `[m, m, K]` and box `[4]` to `[K, 3]`."""
    maps, box = region
    maps, cells = ops.transpose(maps, (2, 0, 1)), maps.shape[0]
    start = ops.stack([box[1], box[0]])
    side = ops.maximum(ops.stack([box[3], box[2]]) - start, 1.0)
    pixels = ops.ceil(side)  # per axis: y, x
    step = ops.maximum(pixels / SAMPLES, 1.0)
    grid = ops.minimum(ops.floor((np.arange(SAMPLES, dtype="float32") + 0.5) * step[:, None]), pixels[:, None] - 1)
    down, across = ops.unstack(_weights(grid, pixels[:, None], cells), 2)
    values = ops.matmul(ops.matmul(down, maps), ops.transpose(across))
    peaks = _best_per_block(values, grid)  # [K, T, 2]
    offsets = ops.round(np.arange(-AROUND, AROUND + 1, dtype="float32") * ops.maximum(step / AROUND, 1.0)[:, None])
    near = ops.clip(peaks[..., None] + offsets, 0.0, pixels[:, None] - 1)  # [K, T, 2, samples]
    weights = _weights(near, pixels[:, None], cells)
    values = ops.matmul(ops.matmul(weights[:, :, 0], maps[:, None]), ops.transpose(weights[:, :, 1], (0, 1, 3, 2)))
    count = 2 * AROUND + 1
    best = first_maximum(ops.reshape(values, (-1, PEAKS * count * count)), axis=1)
    score = ops.max(values, axis=(1, 2, 3))
    peak, row, column = best // count**2, best // count % count, best % count
    chosen = ops.take_along_axis(near, ops.cast(peak, "int32")[:, None, None, None], axis=1)[:, 0]
    place = [
        ops.take_along_axis(chosen[:, axis], index[:, None], axis=1)[:, 0] for axis, index in ((0, row), (1, column))
    ]
    y, x = ((place[axis] + 0.5) * (side[axis] / pixels[axis]) + start[axis] for axis in (0, 1))
    return ops.stack([x, y, score], axis=-1)


def _best_per_block(values, grid):
    """Pixels of the best sample in each of the PEAKS best blocks.

    Args:
        values: float32 `[K, SAMPLES, SAMPLES]`.
        grid: float32 `[2, SAMPLES]`, the pixel of each sample along y and x.

    Returns:
        float32 `[K, PEAKS, 2]`, y and x.
    """
    each = SAMPLES // BLOCKS
    blocks = ops.transpose(ops.reshape(values, (-1, BLOCKS, each, BLOCKS, each)), (0, 1, 3, 2, 4))
    blocks = ops.reshape(blocks, (-1, BLOCKS * BLOCKS, each * each))
    _, block = ops.top_k(ops.max(blocks, axis=2), PEAKS)
    inside = ops.take_along_axis(first_maximum(blocks, axis=2), block, axis=1)
    block, inside = ops.cast(block, "int32"), ops.cast(inside, "int32")
    rows, columns = block // BLOCKS * each + inside // each, block % BLOCKS * each + inside % each
    return ops.stack([ops.take(grid[0], rows), ops.take(grid[1], columns)], axis=-1)


def _weights(pixel, pixels, cells):
    """Bicubic weight of each cell of an axis in given pixels of the enlarged axis.

    Args:
        pixel: float32 `[..., S]`, indices of pixels.
        pixels: float32, broadcastable to `pixel`, number of pixels of the axis.
        cells: number of cells.

    Returns:
        float32 `[..., S, cells]`.
    """
    position = (pixel + 0.5) * (cells / pixels) - 0.5
    distance = ops.abs(position[..., None] - np.arange(-2, cells + 2, dtype="float32"))
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    weights = ops.where(distance <= 1, near, ops.where(distance < 2, far, 0.0))
    # Outside, the border cell continues, so it takes the weights of the two cells there.
    first, last = (ops.sum(part, axis=-1, keepdims=True) for part in (weights[..., :3], weights[..., -3:]))
    return ops.concatenate([first, weights[..., 3:-3], last], axis=-1)
