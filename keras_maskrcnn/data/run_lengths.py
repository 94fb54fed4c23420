"""Segmentations of COCO files as run lengths, checked before pycocotools reads them.

pycocotools does not check its input: it writes outside its buffers, or allocates memory in proportion to the
coordinates.
"""

import numpy as np
from pycocotools import mask as run_length

MAX_OUTLINE = 1_000_000  # pixels: largest coordinate, and largest sum of |dx| + |dy| along the polygons of an instance


def run_lengths(segmentation, size):
    """Returns a segmentation in pycocotools' compressed form, or None for polygons without three corners.

    Args:
        segmentation: The value in a COCO file: a list of polygons, or a dict of run lengths.
        size: (H, W) of the image.

    Raises:
        ValueError: It cannot be read; the message is the reason.
    """
    if isinstance(segmentation, list):
        return _polygons(segmentation, size)
    try:
        run_size, counts = tuple(segmentation["size"]), segmentation["counts"]
        runs = run_length.frPyObjects(segmentation, *size) if isinstance(counts, list) else segmentation
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its mask is neither polygons nor run lengths") from error
    if run_size != size:
        raise ValueError(f"its mask is {run_size[1]} x {run_size[0]} pixels, the image {size[1]} x {size[0]}")
    if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
        raise ValueError("its run lengths do not add up to the image's pixels")
    return runs


def _polygons(polygons, size):
    kept, outline = [], 0.0
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError("its polygons are not lists of x, y")
        if len(polygon) < 6:
            continue
        try:
            corners = np.array(polygon + polygon[:2])
        except ValueError:  # lists of different lengths among the numbers
            corners = np.array(None)
        if corners.ndim != 1 or corners.dtype.kind not in "iuf":
            raise ValueError("its polygons are not lists of numbers")
        corners = corners.astype(np.float64, copy=False)
        if not np.abs(corners).max() <= MAX_OUTLINE:  # also where one is NaN
            raise ValueError(f"its polygons have coordinates that are not finite or beyond {MAX_OUTLINE} pixels")
        outline += np.abs(corners[2:] - corners[:-2]).sum()
        kept.append(polygon)
    if outline > MAX_OUTLINE:
        raise ValueError(f"its polygons are longer than {MAX_OUTLINE} pixels")
    return run_length.merge(run_length.frPyObjects(kept, *size)) if kept else None
