"""Checks of a whole data set, after all of its images: classes, sizes, colours, and what its reader left out."""

import collections

import numpy as np

from keras_maskrcnn.data.doctor.findings import set_check

RARE = 10  # objects of a class
IMBALANCE = 50.0  # objects of the most frequent class per object of the least frequent one
MIXED = 0.05  # least share of each kind of image that makes a mixture
BOXES = 0.9  # least share of masks that are rectangles in a set that was annotated with boxes
MIN_SIDE, MIN_COUNT = 16, 10  # sides of objects whose shape tells, and least number of them
DARK, BRIGHT = 64, 160  # medians of grey values


@set_check(
    "left-out",
    "error",
    "annotations that the reader leaves out",
    "They are not trained on. The reason says what is wrong with each; repair them in the tool that made them.",
)
def left_out(part):
    """`dropped` of the reader."""
    for place, reason in part.dataset.dropped.items():
        yield f"annotation {place}" if isinstance(place, int) else str(place), reason


@set_check(
    "no-object-of-class",
    "warning",
    "classes without an object",
    "The class cannot be learned or measured here. Add images of it, or remove the class.",
)
def no_object_of_class(part):
    """Names of classes that no instance has."""
    counts = class_counts(part)
    yield from ((name, "no object") for name, count in counts.items() if not count)


@set_check(
    "same-name",
    "warning",
    "classes of the same name",
    "They are trained as different classes, and scores by name show one of them. Give all objects one category, or the "
    "classes different names.",
)
def same_name(part):
    """Names of several classes, such as those of files that were joined."""
    counts = collections.Counter(part.dataset.class_names)
    yield from ((name, f"{count} classes") for name, count in counts.items() if count > 1)


@set_check(
    "rare-class",
    "note",
    f"classes with fewer than {RARE} objects",
    "Too few to learn from and to measure. Add images, or sample images of rare classes more often.",
)
def rare_class(part):
    """Classes with some objects."""
    yield from ((name, f"{count} objects") for name, count in class_counts(part).items() if 0 < count < RARE)


@set_check(
    "imbalance",
    "warning",
    f"one class has over {IMBALANCE:g} times the objects of another",
    "The rare classes are predicted too seldom. Sample their images more often, and read scores per class.",
)
def imbalance(part):
    """The most and the least frequent class."""
    counts = {name: count for name, count in class_counts(part).items() if count}
    if counts and max(counts.values()) > IMBALANCE * min(counts.values()):
        most, least = max(counts, key=counts.get), min(counts, key=counts.get)
        yield part.name, f"{counts[most]} objects of {most}, {counts[least]} of {least}"


@set_check(
    "mostly-empty",
    "warning",
    "more images without objects than with",
    "Most steps teach background only. Leave out some of the empty images, if they are not annotated at all first.",
)
def mostly_empty(part):
    """Images with nothing but crowds count as empty."""
    empty = sum(bool(row.crowd.all()) for row in part.rows)
    if 2 * empty > len(part.rows):
        yield part.name, f"{empty} of {len(part.rows)} images"


@set_check(
    "rectangles",
    "warning",
    "masks that are upright rectangles",
    "The set was likely annotated or exported with boxes, and a model learns rectangles as masks. Export polygons, or "
    "train a model of boxes. Right if the objects are rectangles.",
)
def rectangles(part):
    """Masks that fill their boxes, up to the pixels along half of the outline."""
    boxes = np.concatenate([row.boxes[~row.crowd] for row in part.rows] or [np.zeros((0, 4))])
    areas = np.concatenate([row.areas[~row.crowd] for row in part.rows] or [np.zeros(0)])
    sides = boxes[:, 2:] - boxes[:, :2]
    tells = (sides >= MIN_SIDE).all(axis=1)
    filled = (np.abs(sides.prod(axis=1) - areas) <= sides.sum(axis=1))[tells]
    if len(filled) >= MIN_COUNT and filled.mean() >= BOXES:
        yield part.name, f"{filled.sum()} of {len(filled)} objects with sides of {MIN_SIDE} pixels or more"


@set_check(
    "one-id",
    "warning",
    "mask files of foreground instead of one id per object",
    "Objects of an image become one, which covers all of them. Write one id per object, or one mask file per object.",
)
def one_id(part):
    """Mask files with the value 255 only."""
    if path := getattr(part.dataset, "foreground", None):
        yield str(path), "has the id 255 only"


@set_check(
    "sizes",
    "note",
    "images of several sizes",
    "Each is resized to the canvas of the network, so objects change their scale. For microscopy and aerial images, "
    "where scale has a meaning, consider tiles or a fixed scale.",
)
def sizes(part):
    """Sizes by frequency."""
    found = collections.Counter(row.size for row in part.rows)
    if len(found) > 1:
        most = (f"{width} x {height} ({count})" for (height, width), count in found.most_common(10))
        yield part.name, f"{len(found)} sizes: {', '.join(most)}{', …' * (len(found) > 10)}"


@set_check(
    "grey",
    "note",
    "grey images stored with three channels",
    "Nothing to do. If all are grey, augmentation of colours is of no use; a mixture may need it.",
)
def grey(part):
    """Red, green and blue equal in all pixels; the image file itself has colour channels."""
    count = sum(row.grey and part.modes.get(row.source, "RGB") not in GREY_MODES for row in part.rows)
    if count:
        yield part.name, f"{count} of {len(part.rows)} images"


GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")


@set_check(
    "mixture",
    "note",
    "images of different kinds",
    "Such as fluorescence and stained tissue. Look at scores per kind, and keep the shares equal in training and "
    "validation.",
)
def mixture(part):
    """Grey and coloured images, dark and bright ones, each at least `MIXED` of the set."""
    count = len(part.rows)
    medians = np.array([row.brightness for row in part.rows])
    greys = sum(row.grey for row in part.rows)
    for one, other, numbers in (
        ("grey", "coloured", (greys, count - greys)),
        ("dark", "bright", ((medians < DARK).sum(), (medians > BRIGHT).sum())),
    ):
        if count and min(numbers) >= MIXED * count and min(numbers):
            yield part.name, f"{numbers[0]} {one} and {numbers[1]} {other} images"


def class_counts(part):
    """Number of objects of each class, without crowds: dict in the order of the classes."""
    labels = [row.labels[~row.crowd] for row in part.rows]
    counts = np.bincount(np.concatenate([*labels, np.zeros(0, int)]), minlength=len(part.dataset.class_names) + 1)
    return dict(zip(part.dataset.class_names, counts[1:].tolist(), strict=True))
