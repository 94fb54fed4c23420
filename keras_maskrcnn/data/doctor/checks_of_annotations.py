"""Checks of single instances: boxes, masks, polygons and run lengths."""

import numpy as np

from keras_maskrcnn.data.doctor.findings import image_check
from keras_maskrcnn.data.doctor.regions import component_areas

MOST_OFF = 2.0  # pixels between the edges of a box and of its mask
BEYOND = 1.0  # pixels outside the image: annotation tools round outwards
SMALL_SIDE, TINY_AREA = 16, 16
LEAST_PART = 5  # pixels; smaller parts come from drawing thin polygons
TWICE = 0.9  # IoU of masks


def _box(values):
    return ", ".join(f"{value:g}" for value in np.round(values, 1))


@image_check(
    "degenerate",
    "error",
    "boxes or polygons without width or height",
    "A click without a drag, or a wrong conversion. Delete them, or draw them again; --fix leaves them out.",
)
def degenerate(facts):
    """A side below one pixel, or coordinates that are not finite."""
    for instance in facts.stated.instances:
        if instance.box is None and instance.polygons is None:
            continue
        sides = _extent(facts, instance)
        if not (sides >= 1).all():
            yield f"{instance.place}: {_box(sides)} pixels wide and high", _index(facts, instance)


@image_check(
    "outside",
    "error",
    "annotations that reach out of their image",
    "They belong to another image or another size of it. Pixels outside are cut off; an instance that lies outside "
    "completely is left out.",
)
def outside(facts):
    """Corners more than a pixel outside."""
    if facts.size is None:
        return
    for instance in facts.stated.instances:
        points = facts.corners(instance)
        beyond = np.maximum(-points, points - facts.size[::-1]).max(initial=0)
        if beyond > BEYOND:
            detail = f"{instance.place}: {beyond:.1f} pixels outside of {facts.size[1]} x {facts.size[0]}"
            yield detail, _index(facts, instance)


@image_check(
    "swapped",
    "error",
    "x and y that are likely swapped",
    "The annotations leave the image as written and fit if x and y are exchanged. Exchange them in the conversion.",
)
def swapped(facts):
    """All corners of the image together."""
    points = [facts.corners(instance) for instance in facts.stated.instances]
    if facts.size is None or not points or facts.size[0] == facts.size[1]:
        return
    high = np.concatenate([*points, np.zeros((1, 2))]).max(axis=0)
    size = np.array(facts.size[::-1])
    if (high > size + BEYOND).any() and (high <= size[::-1] + BEYOND).all():
        yield f"x up to {high[0]:g} and y up to {high[1]:g} in {size[0]} x {size[1]} pixels", None


@image_check(
    "box-off-mask",
    "warning",
    f"boxes that disagree with their masks by more than {MOST_OFF:g} pixels",
    "The box head and the mask head are taught different objects. Check these in the contact sheet; --fix takes the "
    "box of the mask. Boxes of objects that are partly hidden may be larger on purpose.",
)
def box_off_mask(facts):
    """The largest distance of an edge; a hint if the box fits in another convention."""
    for index, instance in enumerate(facts.kept):
        if instance.box is None:
            continue
        box, mask = np.array(instance.box, float), facts.boxes[index].astype(float)
        off = np.abs(box - mask).max()
        if off > MOST_OFF:
            yield (
                f"{instance.place}: {off:.2f} pixels, box {_box(box)}, mask {_box(mask)}{_convention(box, mask)}",
                index,
            )


def _convention(box, mask):
    """Which other reading of the four numbers fits the mask."""
    x, y, right, bottom = box
    readings = {
        "x1, y1, x2, y2": (x, y, right - x, bottom - y),
        "y, x, height, width": (y, x, bottom, right),
        "centre, width, height": (*(box[:2] - (box[2:] - box[:2]) / 2), *(box[:2] + (box[2:] - box[:2]) / 2)),
    }
    fits = (name for name, other in readings.items() if np.abs(other - mask).max() <= MOST_OFF)
    name = next(fits, None)
    return f"; it fits as {name}" if name else ""


@image_check(
    "small",
    "note",
    f"objects with a side under {SMALL_SIDE} pixels",
    "The finest level of the pyramid has cells of 4 pixels. Train at a higher resolution, or on crops, if they matter.",
)
def small(facts):
    """The shorter side of the mask's box."""
    for index in _of_sample(facts):
        width, height = facts.boxes[index, 2:] - facts.boxes[index, :2]
        if min(width, height) < SMALL_SIDE:
            yield f"{width:g} x {height:g} pixels", index


@image_check(
    "tiny",
    "warning",
    f"masks of fewer than {TINY_AREA} pixels",
    "Slips of the pen, or objects that are too small to learn at this resolution. Delete the slips.",
)
def tiny(facts):
    """The pixels of the mask."""
    yield from ((f"{facts.areas[i]} pixels", i) for i in _of_sample(facts) if facts.areas[i] < TINY_AREA)


@image_check(
    "parts",
    "note",
    "masks of several separate parts",
    "Right where something in front divides the object. Otherwise two objects share an id, or a stray click was saved.",
)
def parts(facts):
    """8-connected components of the mask, of `LEAST_PART` pixels or more."""
    for index in _of_sample(facts):
        areas = [area for area in component_areas(facts.crops[index]) if area >= LEAST_PART]
        if len(areas) > 1:
            yield f"{len(areas)} parts of {', '.join(map(str, areas[:4]))}{', …' * (len(areas) > 4)} pixels", index


@image_check(
    "polygons",
    "note",
    "instances of more than one polygon",
    "They are one object with several parts; tools that keep the first polygon lose the others.",
)
def polygons(facts):
    """Polygons as written."""
    for instance in facts.stated.instances:
        if len(instance.polygons or ()) > 1:
            yield f"{instance.place}: {len(instance.polygons)} polygons", _index(facts, instance)


@image_check(
    "uncompressed",
    "note",
    "masks with uncompressed run lengths",
    "Valid COCO (`counts` is a list), which some tools cannot read. --fix writes them compressed.",
)
def uncompressed(facts):
    """Counts as a list."""
    for instance in facts.stated.instances:
        if isinstance(instance.counts, list):
            detail = f"{instance.place}: {len(instance.counts)} counts, area {instance.area!r}"
            yield detail, _index(facts, instance)


@image_check(
    "crowd",
    "note",
    "crowd regions",
    "They are not counted as objects, and detections inside are not false positives.",
)
def crowd(facts):
    """Instances of the sample that are crowds."""
    if facts.sample is not None:
        yield from (("crowd region", int(index)) for index in np.flatnonzero(facts.sample["crowd"]))


@image_check(
    "overlap",
    "note",
    "images whose masks overlap",
    "Fine for COCO files. Files with one id per pixel cannot hold it: pixels go to one of the objects.",
)
def overlap(facts):
    """The number of pairs, and the pair that shares most."""
    if facts.sample is not None and facts.shared:
        pair, pixels = max(facts.shared.items(), key=lambda item: item[1])
        yield f"{len(facts.shared)} pairs; most, {pixels} pixels, are shared by instances {pair[0]} and {pair[1]}", None


@image_check(
    "twice",
    "warning",
    "objects that are annotated twice",
    "Non-maximum suppression removes one of the two detections, so one is always missed. --fix keeps the first.",
)
def twice(facts):
    """Masks of one class with an IoU of `TWICE` or more."""
    yield from ((f"instance {j} is instance {i} again", j) for i, j in doubles(facts))


def doubles(facts):
    """Pairs (i, j) of instances of the same class whose masks are nearly equal."""
    if facts.sample is None:
        return
    labels, areas = facts.sample["labels"], facts.areas
    for (i, j), shared in facts.shared.items():
        if labels[i] == labels[j] and shared >= TWICE * (areas[i] + areas[j] - shared):
            yield i, j


def _extent(facts, instance):
    """Width and height of a stated box, or else of polygons; not a number where coordinates are not finite."""
    if instance.box is not None:
        return np.array(instance.box[2:], float) - instance.box[:2]
    points = facts.corners(instance)
    return np.ptp(points, axis=0) if len(points) else np.zeros(2)


def _of_sample(facts):
    """Indices of the instances of a sample that are no crowds."""
    return [] if facts.sample is None else np.flatnonzero(~facts.sample["crowd"]).tolist()


def _index(facts, instance):
    """Index of a stated instance in the sample, or None."""
    return next((i for i, kept in enumerate(facts.kept) if kept is instance), None)
