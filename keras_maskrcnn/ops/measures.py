"""Measurements of one object in its mask. NumPy only."""

import math

import numpy as np


def measures(mask):
    """Area, circumference and place of an object.

    The circumference is Crofton's formula with four directions (Legland et al. 2007, "Computation of Minkowski measures
    on 2D and 3D binary images"): lines in each direction are counted where they enter or leave the object, so that a
    staircase of pixels is not measured step by step. It is 2πr for a disc of radius r, 5 % less than the sides of a
    large upright rectangle (8 % at 8 x 10 pixels), and includes the edges of holes.

    Args:
        mask: bool `[h, w]`.

    Returns:
        dict of float in pixels: `area`; `circumference`; `centroid_x` and `centroid_y`, where (0.5, 0.5) is the centre
        of the first pixel; and `equivalent_diameter`, of the disc that has the area. Without pixels all are 0, and the
        centroid is NaN.
    """
    area = int(np.count_nonzero(mask))
    y, x = ((_weighted(mask.sum(axis=axis)) / area + 0.5) if area else math.nan for axis in (1, 0))
    return {
        "area": float(area),
        "circumference": _circumference(mask),
        "centroid_x": float(x),
        "centroid_y": float(y),
        "equivalent_diameter": math.sqrt(4 * area / math.pi),
    }


def _weighted(counts):
    return float(counts @ np.arange(len(counts)))


def _circumference(mask):
    padded = np.pad(mask, 1)
    straight = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    falling, rising = padded[1:, 1:] != padded[:-1, :-1], padded[1:, :-1] != padded[:-1, 1:]
    # Diagonal lines through pixels are 1/√2 apart.
    return math.pi / 8 * (straight + (np.count_nonzero(falling) + np.count_nonzero(rising)) / math.sqrt(2))
