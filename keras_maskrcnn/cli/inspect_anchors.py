"""How well anchors fit the boxes of inspected data sets."""

from typing import NamedTuple

import numpy as np

from keras_maskrcnn.data.doctor.statistics import objects
from keras_maskrcnn.ops.placement import fitted_size
from keras_maskrcnn.training.anchor_proposal import DEFAULT, anchors_for, described, placed_iou

SHORTER, LONGER = 800, 1333  # the default of `inference.placement.Resize`
THRESHOLDS = (0.5, 0.7)


class Fit(NamedTuple):
    """Anchors and the boxes that they reach.

    Attributes:
        content: dict for JSON: `proposed`, the anchors from the first set, and `reached`, per set and kind of anchors
            the shares of objects with an anchor of an IoU of 0.5 and 0.7.
        lines: list of str for the console.
        overlaps: dict from names of sets to dicts from "default" and "proposed" to the best IoU of each object.
    """

    content: dict
    lines: list
    overlaps: dict


def fit(parts, image_size=None):
    """Compares the default anchors with those proposed from the first set that has objects.

    Args:
        parts: list of `facts.Part`, inspected.
        image_size: (height, width) of the network's canvas; None for the rule of the papers.

    Returns:
        A `Fit`.
    """
    scaled = {part.name: _scaled(part, image_size) for part in parts}
    scaled = {name: values for name, values in scaled.items() if len(values[0])}
    if not scaled:
        return Fit({}, [], {})
    first = next(iter(scaled.values()))[0]
    proposed, summary = anchors_for(first[:, 2:] - first[:, :2])
    overlaps = {
        name: {"default": placed_iou(*values, DEFAULT), "proposed": placed_iou(*values, proposed)}
        for name, values in scaled.items()
    }
    reached = {
        name: {kind: [float((iou >= threshold).mean()) for threshold in THRESHOLDS] for kind, iou in of.items()}
        for name, of in overlaps.items()
    }
    lines = [described(proposed, summary)]
    for name, of in reached.items():
        shares = "; ".join(f"{kind} anchors {low:.0%} and {high:.0%}" for kind, (low, high) in of.items())
        lines.append(f"{name}: objects with an anchor of IoU 0.5 and 0.7: {shares}")
    return Fit({"proposed": proposed, "reached": reached, "thresholds": THRESHOLDS}, lines, overlaps)


def _scaled(part, image_size):
    """Boxes float64 [n, 4] and sizes (width, height) [n, 2] in pixels of the network's input."""
    boxes, _ = objects(part)
    counts = [int((~row.crowd).sum()) for row in part.rows]
    sizes = np.array([row.size for row in part.rows], float).reshape(-1, 2)
    inputs = np.array([_input(row.size, image_size) for row in part.rows], float).reshape(-1, 2)
    factors = np.repeat((inputs / sizes)[:, ::-1], counts, axis=0)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return (boxes * np.tile(factors, 2))[kept], np.repeat(inputs[:, ::-1], counts, axis=0)[kept]


def _input(size, image_size):
    if image_size:
        return fitted_size(size, image_size)
    return np.array(size) * min(SHORTER / min(size), LONGER / max(size))
