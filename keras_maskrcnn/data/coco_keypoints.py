"""Keypoints of COCO files: their names, which of them change sides when mirrored, and their values."""

import array
import re

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.fields import Points

NAME = "keypoints"
SIDES = ("left", "right")
# The keypoints of COCO's category "person", in the order of its files.
PERSON = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
# Pairs of names of keypoints that a drawing connects.
LIMBS = (
    *(("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear")),
    *(("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")),
    *((f"{side}_{one}", f"{side}_{other}") for side in SIDES for one, other in (
        *(("shoulder", "elbow"), ("elbow", "wrist"), ("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle")),
    )),
)  # fmt: skip
VISIBILITY = (0, 1, 2)  # not labelled, hidden, visible
CENTRE = 0.5  # COCO states indices of pixels; see data/fields.py


def points_of(categories, path):
    """Returns the field of the keypoints that the categories of a file declare.

    Args:
        categories: List of the records; those without keypoints may be among them.
        path: Path of the file, for messages.

    Returns:
        `Points` of the shape (K, 3) with the names of the keypoints.

    Raises:
        DataError: No category has keypoints, or two have different ones.
    """
    found = {category["name"]: category[NAME] for category in categories if category.get(NAME)}
    if not found:
        raise DataError(path, "has no category with keypoints")
    (first, names), *others = found.items()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(path, f"the keypoints of the category {first!r} are no list of names")
    if len({name.lower() for name in names}) < len(names):
        raise DataError(path, f"the category {first!r} has two keypoints of the same name")
    if other := next((name for name, these in others if these != names), None):
        raise DataError(path, f"the categories {first!r} and {other!r} have different keypoints")
    return Points(NAME, (len(names), 3), mirrored=mirrored(names), names=tuple(names))


def mirrored(names):
    """Returns the permutation of keypoints in a mirrored image: left and right change places.

    Args:
        names: Sequence of K names, such as "left_eye".

    Returns:
        Tuple of K indices; a point in the middle, or whose other side has no name, stays.
    """
    places = {name.lower(): index for index, name in enumerate(names)}
    return tuple(places.get(_other_side(name.lower()), index) for index, name in enumerate(names))


def _other_side(name):
    left, right = SIDES
    return re.sub("|".join(SIDES), lambda found: right if found[0] == left else left, name)


class Faults:
    """Finds keypoints that cannot be used, annotation by annotation; the categories may be known only after all."""

    def __init__(self):
        self._lengths = array.array("q")  # of the lists, 0 where there are no keypoints, -1 for anything else
        self._values = {}  # from positions to reasons

    def add(self, annotation):
        """Adds the record of the next annotation; its keypoints may be missing."""
        stated = annotation.get(NAME)
        if isinstance(stated, list) and (reason := _fault(stated)):
            self._values[len(self._lengths)] = reason
        self._lengths.append((len(stated) if isinstance(stated, list) else -1) if stated else 0)

    def found(self, field):
        """Returns a dict from the positions of annotations to reasons.

        Args:
            field: the `Points` of the file's categories.
        """
        count, lengths = 3 * field.shape[0], np.array(self._lengths)
        wrong = np.flatnonzero((lengths != 0) & (lengths != count)).tolist()
        return self._values | dict.fromkeys(wrong, f"its keypoints are not {count} numbers")


def _fault(stated):
    """Why a list of keypoints cannot be used, however long it is, or None."""
    from keras_maskrcnn.data.outlines import numbers  # needs pycocotools, which models with keypoints do not

    try:
        visibility = numbers(stated)[2::3]
    except ValueError as error:
        return f"its keypoints: {error}"
    return None if np.isin(visibility, VISIBILITY).all() else "its keypoints have a visibility that is not 0, 1 or 2"


def values(annotations, fields, size):
    """Returns the keypoints of annotations without fault: dict from the name of each field to float32 [n, K, 3].

    Args:
        annotations: List of n records.
        fields: Tuple of the `Points` that are read: one or none.
        size: (H, W) of the image; a point outside counts as not labelled.
    """
    found = {}
    for field in fields:
        points = np.zeros((len(annotations), *field.shape), np.float32)
        for row, annotation in zip(points, annotations, strict=True):
            if annotation.get(NAME):
                row[:] = np.reshape(annotation[NAME], field.shape)
        found[field.name] = field.move(points, np.array([[1, 0, CENTRE], [0, 1, CENTRE]]), size)
    return found


def named(fields):
    """Returns those of a data set's fields that a COCO file can state, one or none: keypoints with names."""
    return [field for field in fields if field.name == NAME and isinstance(field, Points) and field.names]


def flat(points):
    """Returns the keypoints of an object as a COCO file states them, all labelled: list of 3 K floats.

    Args:
        points: float32 [K, 3].
    """
    return (points - np.array([CENTRE, CENTRE, 0], np.float32)).ravel().tolist()


def scored(annotation, fields):
    """Returns the keypoints of a record for `Dataset.coco_annotations`: a dict, empty if `fields` is.

    Keypoints that are missing or faulty are not labelled; COCOeval ignores an object of which none is.
    """
    field = next(iter(fields), None)
    if field is None:
        return {}
    stated = annotation.get(NAME)
    usable = isinstance(stated, list) and len(stated) == 3 * field.shape[0] and not _fault(stated)
    return {NAME: stated if usable else [0] * (3 * field.shape[0])}


def records(points):
    """Returns the keypoints of instances as a COCO file states them: list of n dicts.

    Args:
        points: float32 [n, K, 3].
    """
    labelled = points[..., 2:] > 0
    stated = (
        np.where(labelled, points - np.array([CENTRE, CENTRE, 0]), 0).reshape(len(points), 3 * points.shape[1]).tolist()
    )
    return [
        {NAME: [int(value) if value == int(value) else value for value in row], "num_keypoints": int(count)}
        for row, count in zip(stated, labelled.sum((1, 2)), strict=True)
    ]
