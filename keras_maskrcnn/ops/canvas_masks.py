"""Masks of the whole canvas, one map `[h, w]` per object: targets, cropping, and the way to boxes and to the image.

The map covers the canvas, whatever its number of cells: a cell of a canvas of 550 pixels and a map of 138 cells has 550
/ 138 pixels.
"""

import numpy as np
from keras import ops

from keras_maskrcnn.ops.maps import resize
from keras_maskrcnn.ops.masks import mask_targets, pasted, pasted_crops

# Cells by which a crop reaches beyond its box (`sanitize_coordinates` in `layers/box_utils.py` of YOLACT).
MARGIN = 1
# A mask of logit 0 has the probability 0.5 and is background: it is the value where all prototypes are 0.
THRESHOLD = 0.5 + 1e-6


def assembled(prototypes, coefficients):
    """Sums of prototypes (YOLACT, equation 1, without the sigmoid).

    Args:
        prototypes: float32 `[B, h, w, k]`.
        coefficients: float32 `[B, D, k]`.

    Returns:
        float32 `[B, D, h, w]`, logits.
    """
    _, height, width, count = ops.shape(prototypes)
    flat = ops.reshape(prototypes, (-1, height * width, count))
    logits = ops.matmul(coefficients, ops.transpose(flat, (0, 2, 1)))
    return ops.reshape(logits, (-1, coefficients.shape[1] or ops.shape(coefficients)[1], height, width))


def in_cells(boxes, canvas, size):
    """Boxes `[..., 4]` from pixels of a canvas (height, width) to cells of a map (height, width)."""
    down, across = (
        ops.cast(cells, "float32") / ops.cast(side, "float32") for cells, side in zip(size, canvas, strict=True)
    )
    return boxes * ops.stack([across, down, across, down])


def inside(boxes, size):
    """Cells that belong to a box or its margin.

    Args:
        boxes: float32 `[B, D, 4]` in cells.
        size: (height, width) of the map.

    Returns:
        bool `[B, D, height, width]`: cell i is inside if x1 - `MARGIN` ≤ i < x2 + `MARGIN`.
    """
    rows, columns = (
        ops.logical_and(cell >= boxes[..., axis][..., None] - MARGIN, cell < boxes[..., axis + 2][..., None] + MARGIN)
        for axis, cell in ((1, _cells(size[0])), (0, _cells(size[1])))
    )
    return ops.logical_and(rows[..., :, None], columns[..., None, :])


def _cells(count):
    return ops.cast(ops.arange(count), "float32")


def targets(masks, boxes, canvas, size):
    """Ground-truth masks at the resolution of the prototypes.

    Args:
        masks: `[B, N, M, M]`, coverage 0…255 inside the boxes: a cell's target is 1 if the object covers more than half
            of its area. Or `[B, N, *canvas]`, 0 and 255: then the mask is interpolated at the centre of the cell, as in
            `lincomb_mask_loss` of YOLACT.
        boxes: float32 `[B, N, 4]` in pixels of the canvas.
        canvas: (height, width) of the canvas.
        size: (height, width) of the map.

    Returns:
        float32 `[B, N, height, width]`, 0 or 1.
    """
    batch, count, height, width = ops.shape(masks)
    if is_of_canvas(masks, canvas):
        found = resize(ops.cast(ops.reshape(masks, (-1, height, width, 1)), "float32"), size)[..., 0] / 255.0
    else:
        whole = ops.cast(ops.stack([0, 0, canvas[1], canvas[0]]), "float32")
        flat, of_boxes = ops.reshape(masks, (-1, height, width)), ops.reshape(boxes, (-1, 4))
        found = mask_targets(flat, of_boxes, whole[None], tuple(size))
    found = ops.reshape(found, (batch, count, size[0], size[1]))
    return ops.stop_gradient(ops.cast(found > 0.5, "float32"))


def is_of_canvas(masks, canvas):
    """Whether masks `[B, N, ...]` are those of the whole canvas, not of their boxes."""
    return tuple(masks.shape[2:]) == tuple(canvas)


# From the network's input to boxes and to images -------------------------------------------------------------------


def inside_boxes(masks, boxes, canvas, cells):
    """Masks on a grid inside their boxes, for clients that expect them so; bilinear, a graph of `keras.ops`.

    Args:
        masks: float32 `[B, D, h, w]`, probabilities.
        boxes: float32 `[B, D, 4]` in pixels of the canvas.
        canvas: (height, width) of the canvas.
        cells: cells per side of the grid, m.

    Returns:
        float32 `[B, D, m, m]`.
    """
    size = ops.shape(masks)[2:]
    boxes = in_cells(boxes, canvas, size)
    grid = (ops.cast(ops.arange(cells), "float32") + 0.5) / cells

    def weights(axis, count):
        start, end = boxes[..., axis][..., None], boxes[..., axis + 2][..., None]
        places = ops.clip(start + grid * (end - start) - 0.5, 0.0, ops.cast(count, "float32") - 1.0)
        return ops.maximum(1.0 - ops.abs(places[..., None] - _cells(count)), 0.0)

    return ops.matmul(ops.matmul(weights(1, size[0]), masks), ops.transpose(weights(0, size[1]), (0, 1, 3, 2)))


def paste(masks, boxes, image_size, steps):
    """Binary masks of the image: each map is interpolated bilinearly at the pixels' centres, and exceeds 0.5.

    Args:
        masks: float32 array `[n, h, w]`, probabilities, 0 outside the boxes and their margin.
        boxes: float32 array `[n, 4]` in pixels of the image.
        image_size: (height, width).
        steps: (x, y), cells per pixel of the image.

    Returns:
        bool NumPy array `[n, height, width]`.
    """
    return pasted(*_sampling(masks, boxes, image_size, steps), image_size, THRESHOLD)


def paste_crops(masks, boxes, image_size, steps, keep=lambda left, top, mask: mask):
    """`paste` without the parts of the image that are outside the boxes and their margin.

    Args:
        masks: as for `paste`.
        boxes: as for `paste`.
        image_size: as for `paste`.
        steps: as for `paste`.
        keep: function of left, top and the mask bool `[h, w]` of an object. It is called in threads.

    Returns:
        list of n results of `keep`.
    """
    return pasted_crops(*_sampling(masks, boxes, image_size, steps), THRESHOLD, keep)


def _sampling(masks, boxes, image_size, steps):
    """The part of each map that its pixels need, and these pixels with their weights along y and along x."""
    parts, down, across = [], [], []
    for mask, box in zip(np.asarray(masks, "float32"), np.asarray(boxes, "float32"), strict=True):
        rows, cells_down, weights_down = _axis(box[1], box[3], image_size[0], steps[1], mask.shape[0])
        columns, cells_across, weights_across = _axis(box[0], box[2], image_size[1], steps[0], mask.shape[1])
        parts.append(mask[cells_down, cells_across])
        down.append((rows, weights_down))
        across.append((columns, weights_across))
    return parts, down, across


def _axis(start, end, pixels, step, cells):
    """Pixels of an axis that a box can reach, the cells that they are interpolated from, and their weights.

    Args:
        start: first coordinate of the box in pixels.
        end: last coordinate.
        pixels: length of the axis.
        step: cells per pixel.
        cells: cells of the map along the axis.

    Returns:
        (slice of the pixels, slice of the cells, float32 `[pixels in the slice, cells in the slice]`).
    """
    reach = (MARGIN + 1) / step  # beyond it, cells of the crop have less than half of a pixel's weight
    first = int(np.clip(np.floor(start - reach), 0, pixels))
    last = max(int(np.clip(np.ceil(end + reach), 0, pixels)), first)
    places = np.clip((np.arange(first, last, dtype="float32") + 0.5) * np.float32(step) - 0.5, 0, cells - 1)
    low, high = (int(places[0]), int(places[-1]) + 2) if len(places) else (0, 1)
    used = slice(low, min(high, cells))
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(used.start, used.stop, dtype="float32")), 0)
    return slice(first, last), used, weights.astype("float32")
