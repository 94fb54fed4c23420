"""Regions of interest (RoIs): the level that each is pooled from, its place there, and the table of all pixels.

RoIAlign and RoIWarp (`ops/roi_align.py`) and RoIPool (`ops/roi_pool.py`) share this code.
"""

import typing

from keras import ops


class LevelBoxes(typing.NamedTuple):
    """Boxes in pixels of the level that each is pooled from; made by `level_boxes`.

    Attributes:
        start: float32 `[N, 2]`, first corner as (y, x).
        length: float32 `[N, 2]`, height and width.
        image_index: int32 `[N]`, image of each box.
        levels: int32 `[N]`, index of its level.
    """

    start: typing.Any
    length: typing.Any
    image_index: typing.Any
    levels: typing.Any


def assign_levels(boxes, min_level=2, max_level=5, canonical_size=224, canonical_level=4):
    """Level of the feature pyramid that each box is pooled from.

    Lin et al., Feature Pyramid Networks (2017), equation 1: k = ⌊k0 + log2(√(w·h) / 224)⌋, clamped to the existing
    levels. As in torchvision, 1e-6 is added inside the floor, so that rounding does not move a box of exactly 112
    pixels to the level below.

    Args:
        boxes: float `[..., 4]`, x1, y1, x2, y2 in input pixels.
        min_level: int, finest level (2 for P2, stride 4).
        max_level: int, coarsest level.
        canonical_size: √area in pixels of a box of level `canonical_level`.
        canonical_level: int, k0.

    Returns:
        int32 `[...]` in `min_level … max_level`; boxes without area get `min_level`.
    """
    boxes = ops.cast(boxes, "float32")
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    size = ops.sqrt(ops.where(area > 0, area, 1.0))
    level = ops.floor(canonical_level + ops.log2(size / canonical_size) + 1e-6)
    level = ops.where(area > 0, ops.clip(level, min_level, max_level), float(min_level))
    return ops.cast(level, "int32")


def flatten_pyramid(features):
    """Concatenates the pixels of all levels and images into one table.

    Args:
        features: list of `[B, H, W, C]`, one per level, any float dtype.

    Returns:
        Table float32 `[Σ B·H·W, C]`, in the order level, image, row, column. The gradient of a pixel, a sum over all
        boxes around it, is also accumulated in float32.
    """
    channels = features[0].shape[-1]
    tables = [ops.cast(ops.reshape(feature, (-1, channels)), "float32") for feature in features]
    # The outer reshape only affects the gradient: it makes TensorFlow convert the gather's gradient to a dense tensor
    # here. Otherwise the gradient of the concatenation would filter all taps for every level, which takes most of the
    # compile time under XLA.
    return ops.reshape(ops.concatenate(tables, axis=0), (-1, channels))


def pyramid_layout(features):
    """Position of each level in the table of `flatten_pyramid`.

    Args:
        features: list of `[B, H, W, C]`.

    Returns:
        int32 `[L, 3]`: height, width, and table row of the first pixel of each level.
    """
    layout, first = [], 0
    for feature in features:
        batch, height, width = ops.shape(feature)[:3]
        layout.append(ops.stack([ops.cast(number, "int32") for number in (height, width, first)]))
        first = first + batch * height * width
    return ops.stack(layout)


def level_boxes(boxes, image_index, levels, strides, aligned=False, quantised=False):
    """Boxes of several levels in pixels of their level.

    Args:
        boxes: float32 `[N, 4]`, x1, y1, x2, y2 in input pixels.
        image_index: int32 `[N]`, image of each box.
        levels: int32 `[N]`, index into `strides`.
        strides: sequence of L numbers.
        aligned: bool, see `box_to_level`.
        quantised: bool, whether the boxes are rounded to whole pixels of their level, see `quantised_to_level`.

    Returns:
        `LevelBoxes`.
    """
    # Divided here, not on tensors: TensorFlow's graph optimisation replaces 1 / x by an approximate reciprocal, and a
    # corner on half a pixel would be rounded down.
    scale = ops.take(ops.convert_to_tensor([1.0 / stride for stride in strides], "float32"), levels)[:, None]
    to_level = quantised_to_level if quantised else box_to_level
    return LevelBoxes(*to_level(boxes, scale, aligned), image_index, levels)


def box_to_level(boxes, scale, aligned):
    """Boxes in pixels of their feature map.

    Args:
        boxes: float32 `[N, 4]`, x1, y1, x2, y2 in input pixels.
        scale: number, or float32 `[N, 1]`: feature pixels per input pixel, 1 / stride.
        aligned: bool. True: pixel values are at pixel centres (half a pixel is subtracted), and boxes may be smaller
            than one pixel. False: the older convention, with sides of at least one pixel.

    Returns:
        `(start, length)`, each float32 `[N, 2]` as (y, x), in feature pixels.
    """
    boxes = boxes * scale - (0.5 if aligned else 0.0)
    start = ops.flip(boxes[:, :2], axis=1)
    length = ops.flip(boxes[:, 2:], axis=1) - start
    return start, length if aligned else ops.maximum(length, 1.0)


def quantised_to_level(boxes, scale, aligned=False):
    """Boxes rounded to whole pixels of their feature map: the RoI of Fast R-CNN (Girshick 2015).

    Corners are rounded half away from zero, as by C's `round`, and the pixel of the last corner belongs to the box: it
    has round(x2 · scale) - round(x1 · scale) + 1 pixels, and at least one.

    Args:
        boxes: float32 `[N, 4]`, x1, y1, x2, y2 in input pixels.
        scale: number, or float32 `[N, 1]`: feature pixels per input pixel, 1 / stride.
        aligned: bool. True: half a pixel is subtracted from the rounded corner, so that the box is centred on its
            pixels where pixel k has its value at k.

    Returns:
        `(start, length)`, each float32 `[N, 2]` as (y, x), in feature pixels.
    """
    boxes = boxes * scale
    size = ops.abs(boxes)
    whole = ops.floor(size)
    # floor(size + 0.5) would be wrong for the number below 0.5, where the sum is rounded to 1.
    boxes = ops.sign(boxes) * (whole + ops.cast(size - whole >= 0.5, "float32"))
    start = ops.flip(boxes[:, :2], axis=1)
    length = ops.maximum(ops.flip(boxes[:, 2:], axis=1) - start + 1.0, 1.0)
    return start - (0.5 if aligned else 0.0), length


def row_lines(image_index, levels, layout):
    """Position in the table of `flatten_pyramid` of the feature map that each box is pooled from.

    Args:
        image_index: int32 `[N]`, image of each box.
        levels: int32 `[N]`, index into `layout`.
        layout: int32 `[L, 3]` of `pyramid_layout`.

    Returns:
        `(size, pitch, origin)`, each int32 `[N, 2]` as (y, x): pixels of the map; table rows between adjacent pixels;
        offsets that make the places along y and x add up to a table row.
    """
    layout = ops.take(layout, levels, axis=0)
    size, first = layout[:, :2], layout[:, 2]
    height, width = size[:, 0], size[:, 1]
    pitch = ops.stack([width, ops.ones_like(width)], axis=1)
    origin = ops.stack([first + image_index * height * width, ops.zeros_like(width)], axis=1)
    return size, pitch, origin
