"""Parts of a mask, and overlaps of masks."""

import numpy as np

from keras_maskrcnn.data.doctor.duplicates import Groups


def component_areas(mask):
    """Pixels of the 8-connected parts of a mask bool [h, w], the largest first.

    Runs of pixels in a row are joined with those of the row above that they touch.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    one_run_per_row = len(rows) == len(mask)
    if one_run_per_row and (starts[1:] <= stops[:-1]).all() and (stops[1:] >= starts[:-1]).all():
        return [int((stops - starts).sum())]  # most masks; the loop below takes longer
    rows, starts, stops = (values.tolist() for values in (rows, starts, stops))
    groups, above = Groups(len(rows)), 0
    for run, (row, start, stop) in enumerate(zip(rows, starts, stops, strict=True)):
        while rows[above] < row - 1 or (rows[above] == row - 1 and stops[above] < start):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] <= stop:
            groups.join(other, run)
            other += 1
    areas = np.bincount(np.array(groups.roots(), int), np.subtract(stops, starts))
    return sorted(areas[areas > 0].astype(int).tolist(), reverse=True)


def overlaps(masks, boxes):
    """Pixels that pairs of masks share.

    Args:
        masks: bool [n, H, W].
        boxes: float32 [n, 4], of the masks.

    Returns:
        Dict from pairs (i, j), i < j, to the number of pixels; pairs without are left out.
    """
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    candidates = np.argwhere(np.triu((high > low).all(axis=-1), 1))
    found = {}
    for i, j in candidates.tolist():
        (x1, y1), (x2, y2) = low[i, j].astype(int), high[i, j].astype(int)
        shared = int((masks[i, y1:y2, x1:x2] & masks[j, y1:y2, x1:x2]).sum())
        if shared:
            found[i, j] = shared
    return found
