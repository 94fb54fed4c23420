"""Box geometry: areas, overlaps, encoding relative to reference boxes, clipping."""

import math

from keras import ops

# Cap of log(width ratio), so that an untrained regressor cannot overflow: log(1000/16), from Detectron.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def area(boxes):
    """Area of boxes `[..., 4]` in square pixels, `[...]`; 0 where a side is negative."""
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def intersection(first, second):
    """Intersection area of every pair.

    Args:
        first: float32 `[..., N, 4]`.
        second: float32 `[..., M, 4]`, with the same or broadcastable leading dimensions.

    Returns:
        float32 `[..., N, M]` in square pixels.
    """
    x1, y1, x2, y2 = (first[..., :, None, i] for i in range(4))
    u1, v1, u2, v2 = (second[..., None, :, i] for i in range(4))
    width = ops.maximum(ops.minimum(x2, u2) - ops.maximum(x1, u1), 0.0)
    height = ops.maximum(ops.minimum(y2, v2) - ops.maximum(y1, v1), 0.0)
    return width * height


def iou(first, second):
    """Intersection over union of every pair, `[..., N, 4]` with `[..., M, 4]` to `[..., N, M]`; 0 for empty boxes."""
    shared = intersection(first, second)
    union = area(first)[..., :, None] + area(second)[..., None, :] - shared
    return ops.where(union > 0, shared / ops.where(union > 0, union, 1.0), 0.0)


def encode(boxes, reference, weights=(1.0, 1.0, 1.0, 1.0)):
    """Regression targets of `boxes` relative to `reference` (Faster R-CNN, eq. 2).

    `tx = (x - xa) / wa, ty = (y - ya) / ha, tw = log(w / wa), th = log(h / ha)`, with centres x, y and sizes w, h,
    each multiplied by its weight. Sizes are at least 1e-3 pixels, so that padding gives finite values.

    Args:
        boxes: float32 `[..., 4]`, ground truth.
        reference: float32 `[..., 4]`, anchors or proposals.
        weights: factors for tx, ty, tw, th; Fast R-CNN uses (10, 10, 5, 5) for the second stage.

    Returns:
        float32 `[..., 4]`.
    """
    size, anchor_size = (ops.maximum(b[..., 2:] - b[..., :2], 1e-3) for b in (boxes, reference))
    centre, anchor_centre = ((b[..., :2] + b[..., 2:]) / 2 for b in (boxes, reference))
    shift = (centre - anchor_centre) / anchor_size
    deltas = ops.concatenate([shift, ops.log(size / anchor_size)], axis=-1)
    return deltas * ops.convert_to_tensor(weights, "float32")


def decode(deltas, reference, weights=(1.0, 1.0, 1.0, 1.0)):
    """Boxes from regression outputs: the inverse of `encode`, with `tw` and `th` capped at `MAX_LOG_SCALE`.

    Args:
        deltas: float32 `[..., 4]`.
        reference: float32, broadcastable to `[..., 4]`.
        weights: the factors given to `encode`.

    Returns:
        float32 `[..., 4]`.
    """
    weights = ops.convert_to_tensor(weights, "float32")
    # Divided after the slices: OpenVINO 2026.4 loads no INT8 file that slices the result of a division by a vector.
    shift, log_scale = deltas[..., :2] / weights[:2], deltas[..., 2:] / weights[2:]
    anchor_size = reference[..., 2:] - reference[..., :2]
    centre = (reference[..., :2] + reference[..., 2:]) / 2 + shift * anchor_size
    half = ops.exp(ops.minimum(log_scale, MAX_LOG_SCALE)) * anchor_size / 2
    return ops.concatenate([centre - half, centre + half], axis=-1)


def clip(boxes, sizes):
    """Boxes clipped to their image.

    Args:
        boxes: float32 `[B, ..., 4]`.
        sizes: float32 `[B, 2]`, height and width of each image.

    Returns:
        float32 `[B, ..., 4]`.
    """
    limit = ops.stack([sizes[:, 1], sizes[:, 0], sizes[:, 1], sizes[:, 0]], axis=-1)
    limit = ops.reshape(limit, (-1, *([1] * (len(boxes.shape) - 2)), 4))
    return ops.minimum(ops.maximum(boxes, 0.0), limit)


def larger_than(boxes, min_size):
    """Whether both sides are at least `min_size` pixels and greater than 0: `[..., 4]` to bool `[...]`."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return ops.all(ops.logical_and(sides >= min_size, sides > 0), axis=-1)
