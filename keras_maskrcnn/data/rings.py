"""Masks as polygons along the edges of their pixels, which COCO's rasteriser turns into the same masks again."""

import collections

import numpy as np

# The side of a pixel by its neighbour there (rows, columns), from corner to corner (x, y), with the mask on the right.
_SIDES = (((-1, 0), (0, 0), (1, 0)), ((0, 1), (1, 0), (1, 1)), ((1, 0), (1, 1), (0, 1)), ((0, -1), (0, 1), (0, 0)))


def rings(mask):
    """Returns the closed outlines of a mask: of each part, and of each hole.

    Args:
        mask: bool [H, W].

    Returns:
        List of int64 [k, 2], corners x, y in pixels. Outer outlines run clockwise in the image, those of holes
        counter-clockwise: `signed_area` is positive and negative.
    """
    following = _edges(mask)
    found = []
    while following:
        corner = next(iter(following))
        ring = []
        while corner in following:
            ring.append(corner)
            ends = following[corner]
            corner_after = ends.pop()
            if not ends:
                del following[corner]
            corner = corner_after
        found.append(_without_straight_corners(np.array(ring)))
    return found


def _edges(mask):
    """Ends of the edges that start at a corner: two where pixels touch diagonally."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    following = collections.defaultdict(list)
    for (down, across), start, end in _SIDES:
        beside = padded[1 + down : 1 + down + height, 1 + across : 1 + across + width]
        pixels = np.argwhere(mask & ~beside)[:, ::-1]
        for one, other in zip((pixels + start).tolist(), (pixels + end).tolist(), strict=True):
            following[tuple(one)].append(tuple(other))
    return following


def _without_straight_corners(ring):
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    return ring[(before != after).any(1)]


def signed_area(ring):
    """Area inside a ring in square pixels, negative if it runs counter-clockwise in the image."""
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, 0).T
    return float((x * next_y - next_x * y).sum() / 2)


def joined(parts):
    """Returns one ring of several, joined where they are closest by lines there and back.

    Such lines enclose nothing, so that filling by the even-odd rule gives the parts without the holes. Ultralytics
    joins the parts of COCO's objects in this way (`merge_multi_segment` of its converter).

    Args:
        parts: List of [k, 2].
    """
    whole, *others = parts
    for part in others:
        distances = ((whole[:, None] - part[None]) ** 2).sum(-1)
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        whole = np.concatenate([whole[: i + 1], part[j:], part[: j + 1], whole[i:]])
    return whole


def polygons(mask, offset=(0, 0)):
    """The segmentation of a mask as COCO's polygons, which COCO's rasteriser turns into the same mask again.

    A mask with a hole is one polygon, see `joined`; of others, each part is one.

    Args:
        mask: bool [H, W].
        offset: x and y in pixels that are added to the corners, for a mask that is part of an image.

    Returns:
        List of flat lists x1, y1, x2, y2, … in pixels.
    """
    parts = rings(mask)
    if any(signed_area(ring) < 0 for ring in parts):
        parts = [joined(parts)]
    return [(part + np.array(offset)).ravel().tolist() for part in parts]
