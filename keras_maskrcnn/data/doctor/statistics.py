"""Numbers of a data set: counts, sizes, shapes."""

import collections

import numpy as np

from keras_maskrcnn.data.doctor.checks_of_sets import class_counts

SMALL = 16  # pixels


def statistics(part):
    """Returns the numbers of a `facts.Part` as a dict for JSON.

    `object_side` is the root of the mask's area in pixels, `aspect_ratio` height / width of the box; crowds are not
    among the objects.
    """
    rows = part.rows
    counts = np.array([(~row.crowd).sum() for row in rows], int)
    boxes, areas = objects(part)
    sides = boxes[:, 2:] - boxes[:, :2]
    return {
        "images": len(part.dataset),
        "unreadable": len(part.unreadable),
        "objects": int(counts.sum()),
        "crowds": int(sum(row.crowd.sum() for row in rows)),
        "without_objects": int((counts == 0).sum()),
        "objects_per_image": _spread(counts),
        "classes": class_counts(part),
        "image_sizes": {
            f"{width} x {height}": count
            for (height, width), count in collections.Counter(row.size for row in rows).most_common()
        },
        "smallest_image_side": min((min(row.size) for row in rows), default=None),
        "object_side": _spread(np.sqrt(areas)),
        "smallest_mask": int(areas.min()) if len(areas) else None,
        "aspect_ratio": _spread(sides[:, 1] / sides[:, 0]),
        "under_16_pixels": int((sides.min(axis=1) < SMALL).sum()) if len(sides) else 0,
    }


def objects(part):
    """Boxes float32 [n, 4] and mask areas int64 [n] of the objects of a part, without crowds."""
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(row.boxes[~row.crowd] for row in part.rows)])
    areas = np.concatenate([np.zeros(0, np.int64), *(row.areas[~row.crowd] for row in part.rows)])
    return boxes, areas


def _spread(values):
    """Minimum, median, mean and maximum; None without values."""
    if not len(values):
        return None
    names = {"min": np.min, "median": np.median, "mean": np.mean, "max": np.max}
    return {name: float(function(values)) for name, function in names.items()}
