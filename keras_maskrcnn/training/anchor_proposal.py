"""Anchors that suit a data set, by k-means on the sizes and aspect ratios of its boxes."""

import itertools

import numpy as np

from keras_maskrcnn.data.cache import read_or_skip
from keras_maskrcnn.ops.placement import fitted_size

# Bounds of an anchor's side in strides of its level: below, neighbouring anchors leave gaps between them; above, the
# level's features see less than the object. The papers use 8.
BOUNDS = (2.0, 16.0)
# Ratios are added while each raises the mean best IoU by this much.
GAIN = 0.02
MOST_RATIOS = 3
STRIDES = (4, 8, 16, 32, 64)  # of a pyramid
DEFAULT = {"sizes": tuple((8 * stride,) for stride in STRIDES), "ratios": (0.5, 1.0, 2.0)}  # of `heads.anchors`


def propose_anchors(dataset, scale, strides=STRIDES, limit=300):
    """Sizes and ratios of anchors for the boxes of a data set, see `anchors_for`.

    Args:
        dataset: reader of samples; those that cannot be read are skipped, and crowds are not counted.
        scale: pixels of the network's input per pixel of an image; or (height, width) of the canvas that images are
            fitted into.
        strides: of the levels.
        limit: maximum number of images that are read, spread over the data set.

    Returns:
        (anchors, summary), as `anchors_for`.

    Raises:
        ValueError: no image can be read, or none has a box.
    """
    return anchors_for(_sides(dataset, scale, limit), strides)


def anchors_for(sides, strides=STRIDES):
    """Sizes and ratios of anchors for boxes of given widths and heights.

    Sizes: k-means on the logarithm of sqrt(width × height), with one centre per level. The centres start at `c` times
    the level's stride, with the `c` of 2, 4 and 8 whose anchors fit best; a centre without boxes stays where it starts,
    and all are kept between 2 and 16 strides. Ratios: k-means on the logarithm of height / width with one, two or three
    centres; another centre is taken if it raises the mean best IoU by 0.02 or more. The IoU is that of a box and an
    anchor with the same centre, as in YOLOv2 (Redmon & Farhadi 2017, section 2).

    Args:
        sides: float `[N, 2]`, widths and heights in pixels of the network's input.
        strides: of the levels.

    Returns:
        (anchors, summary): dict of `sizes` and `ratios` for `MaskRCNN(anchors=…)`, and dict of `boxes`, their number,
        `mean_iou`, the mean over boxes of the IoU with the best anchor, and `covered`, the share of boxes with 0.5 or
        more.

    Raises:
        ValueError: there is no box.
    """
    if not len(sides):
        raise ValueError("the training set has no box to propose anchors from")
    strides = np.asarray(strides, float)
    ratios = _log_ratios(sides)
    choices = []
    for factor in (2.0, 4.0, 8.0):
        for count in range(1, MOST_RATIOS + 1):
            anchors = {"sizes": _sizes(sides, factor * strides, strides), "ratios": _centres(ratios, count)}
            choices.append((best_iou(sides, anchors).mean() - GAIN * count, anchors))
    anchors = max(choices, key=lambda choice: choice[0])[1]
    found = best_iou(sides, anchors)
    return anchors, {"boxes": len(sides), "mean_iou": float(found.mean()), "covered": float((found >= 0.5).mean())}


def sizes_text(anchors):
    """The sizes of anchors as text, levels between commas, such as "16/20/25, 32/40/51"."""
    return ", ".join("/".join(f"{size:g}" for size in level) for level in anchors["sizes"])


def described(anchors, summary):
    """One line on proposed anchors, for the console."""
    ratios = ", ".join(f"{ratio:g}" for ratio in anchors["ratios"])
    fit = f"mean best IoU {summary['mean_iou']:.2f}, {summary['covered']:.0%} of {summary['boxes']} boxes above 0.5"
    return f"anchors from the data: sizes {sizes_text(anchors)}; ratios (height / width) {ratios}; {fit}"


def best_iou(sides, anchors):
    """IoU of each box with the best of all anchors when their centres coincide.

    Args:
        sides: float `[N, 2]`, width and height in pixels of the network's input.
        anchors: dict of `sizes` and `ratios`.

    Returns:
        float64 `[N]`.
    """
    size = np.array([size for level in anchors["sizes"] for size in level], float)[:, None]
    root = np.sqrt(np.array(anchors["ratios"], float))
    shapes = np.stack([size / root, size * root], axis=-1).reshape(-1, 2)
    shared = np.minimum(sides[:, None], shapes).prod(axis=-1)
    return (shared / (sides.prod(axis=1)[:, None] + shapes.prod(axis=1) - shared)).max(axis=1)


def placed_iou(boxes, sizes, anchors, strides=STRIDES):
    """IoU of each box with the best anchor where it stands on the grid of its level, see `ops.anchors.grid_anchors`.

    Both overlaps, along x and along y, fall with the distance of the centres, so the best anchor of a shape stands at
    the nearest location.

    Args:
        boxes: float `[N, 4]` in pixels of the network's input.
        sizes: float `[N, 2]`, width and height of the input of each box.
        anchors: dict of `sizes` and `ratios`.
        strides: of the levels.

    Returns:
        float64 `[N]`.
    """
    boxes, best = np.asarray(boxes, float), np.zeros(len(boxes))
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    for stride, level in zip(strides, anchors["sizes"], strict=True):
        nearest = np.clip(np.rint(centres / stride), 0, np.ceil(np.asarray(sizes) / stride) - 1) * stride
        for size, root in itertools.product(level, np.sqrt(anchors["ratios"])):
            shape = np.array([size / root, size * root])
            shared = np.minimum(np.minimum(sides, shape), (sides + shape) / 2 - np.abs(centres - nearest))
            shared = np.maximum(shared, 0).prod(axis=1)
            best = np.maximum(best, shared / (sides.prod(axis=1) + shape.prod() - shared))
    return best


def _sides(dataset, scale, limit):
    """Widths and heights of boxes, pixels of the network's input: float64 `[N, 2]`."""
    found = [np.zeros((0, 2))]
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).astype(int)):
        sample = read_or_skip(dataset, int(index))
        if sample is None:
            continue
        boxes = sample["boxes"][~sample["crowd"]].astype(float)
        found.append((boxes[:, 2:] - boxes[:, :2]) * _factor(scale, sample["image"].shape[:2]))
    if len(found) == 1 and dataset.skipped:
        source, reason = next(iter(dataset.skipped.items()))
        raise ValueError(f"no image of the training set can be read, among them {source}: {reason}")
    sides = np.concatenate(found)
    return sides[(sides > 0).all(axis=1)]


def _factor(scale, size):
    return scale if np.ndim(scale) == 0 else fitted_size(size, scale)[::-1] / np.array(size[::-1])


def _log_ratios(sides):
    return np.log(sides[:, 1] / sides[:, 0])


def _sizes(sides, start, strides):
    """One size per level, as a tuple of one-element tuples."""
    bounds = np.log(np.outer(BOUNDS, strides))
    centres = _k_means(0.5 * np.log(sides.prod(axis=1)), np.log(start), bounds)
    return tuple((float(f"{size:.2g}"),) for size in np.exp(centres))


def _centres(values, count):
    """Exponentials of k-means' centres, which start at quantiles; equal ones once."""
    start = np.quantile(values, (np.arange(count) + 0.5) / count)
    return tuple(sorted({float(f"{value:.2g}") for value in np.exp(_k_means(values, start))}))


def _k_means(values, centres, bounds=(-np.inf, np.inf)):
    """Lloyd's algorithm on numbers; a centre without values stays."""
    for _ in range(100):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        means = [values[nearest == i].mean() if (nearest == i).any() else centre for i, centre in enumerate(centres)]
        moved = np.clip(means, *bounds)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres
