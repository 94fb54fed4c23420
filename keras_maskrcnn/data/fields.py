"""Arrays with one row per instance, and maps of whole images: what a data set declares, and how geometry changes them.

A reader declares its arrays in `Dataset.fields`; validation, augmentation and batches then carry them.
"""

import dataclasses

import numpy as np

# Names of other arrays of samples and batches, and of further inputs of a model.
RESERVED = (
    *("image", "boxes", "masks", "image_id", "source", "fields", "images", "sizes", "image_index", "valid"),
    *("proposals", "proposal_valid", "score_threshold", "nms_iou", "max_detections"),
)
TOLERANCE = 1e-3  # pixels: rounding may put a point on the border just outside


@dataclasses.dataclass(frozen=True)
class Field:
    """An array with one row per instance that geometry does not change, for example an attribute or a weight.

    Attributes:
        name: Its key in samples and in the targets of a batch.
        shape: Shape of one row.
        dtype: Name of a NumPy dtype.

    Raises:
        ValueError: Another array of samples or batches, or another input of a model, has this name.
    """

    name: str
    shape: tuple = ()
    dtype: str = "float32"

    per_image = False  # whether there is one array for the image instead of one row per instance
    padding = 0  # value of rows or pixels that fill up an array of a batch

    def __post_init__(self):
        if self.name in RESERVED:
            raise ValueError(f"a field cannot have the name {self.name!r}")
        object.__setattr__(self, "shape", tuple(np.atleast_1d(np.array(self.shape, int)).tolist()))

    def full_shape(self, count, image_size):
        """Returns the shape of the array of an image of `image_size` (H, W) with `count` instances."""
        return (count, *self.shape)

    def move(self, values, matrix, frame=None):
        """Returns the values after the image was transformed.

        Args:
            values: [n, *shape].
            matrix: float64 [2, 3], affine map of x, y from pixels of the image to pixels of the frame.
            frame: (height, width) of the transformed image; None if nothing is cut off.

        Returns:
            [n, *shape].
        """
        return values

    def occlude(self, values, cover):
        """Returns the values after something was pasted over the image.

        Args:
            values: [n, *shape].
            cover: bool [H, W], True where something is in front.

        Returns:
            [n, *shape].
        """
        return values


@dataclasses.dataclass(frozen=True)
class Points(Field):
    """Points of each instance, for example keypoints: x, y in continuous pixels, and visibility.

    Pixel i covers [i, i + 1), so its centre is at i + 0.5. Visibility 0 means that the point is not labelled; a point
    outside the frame becomes such a point. Other values are kept (COCO: 1 is hidden, 2 is visible), but a point that
    something is pasted over becomes 1. The coordinates of a point that is not labelled are 0 after a move.

    Attributes:
        shape: (K, 3).
        mirrored: Permutation of the K points that a mirrored image needs (left eye, right eye); entry k is the point
            that becomes point k. None for none.
        names: Tuple of the names of the K points; None if they have none.

    Raises:
        ValueError: `shape`, `mirrored` or `names` does not fit the description.
    """

    mirrored: tuple | None = None
    names: tuple | None = None

    def __post_init__(self):
        super().__post_init__()
        if np.dtype(self.dtype).kind != "f":
            raise ValueError(f"points {self.name!r} need a floating-point dtype, not {self.dtype}")
        if len(self.shape) != 2 or self.shape[1] != 3:
            raise ValueError(f"points {self.name!r} need the shape (K, 3), not {self.shape}")
        if self.mirrored is not None and sorted(self.mirrored) != list(range(self.shape[0])):
            raise ValueError(f"mirrored must be a permutation of {self.shape[0]} points, not {self.mirrored}")
        if self.names is not None and len(self.names) != self.shape[0]:
            raise ValueError(f"{self.shape[0]} points need as many names, not {len(self.names)}")

    def move(self, values, matrix, frame=None):
        """Returns the transformed points; see `Field.move`."""
        points = values[..., :2] @ matrix[:, :2].T + matrix[:, 2]
        labelled = values[..., 2] > 0
        if frame is not None:
            labelled &= ((points >= -TOLERANCE) & (points <= np.array(frame)[::-1] + TOLERANCE)).all(-1)
        moved = np.where(labelled[..., None], np.concatenate([points, values[..., 2:]], -1), 0).astype(self.dtype)
        if self.mirrored is not None and np.linalg.det(matrix[:, :2]) < 0:
            moved = moved[:, list(self.mirrored)]
        return moved

    def occlude(self, values, cover):
        """Returns the points with those under the cover hidden; see `Field.occlude`."""
        x, y = (np.clip(values[..., axis].astype(int), 0, cover.shape[1 - axis] - 1) for axis in (0, 1))
        hidden = cover[y, x] & (values[..., 2] > 1)
        return np.concatenate([values[..., :2], np.where(hidden, 1, values[..., 2])[..., None]], -1).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class LabelMap(Field):
    """The label of each pixel of an image, uint8 [H, W]: one array for the image, not one row per instance.

    Label 0 is what the map does not divide: objects ("things") in panoptic data, or background. Resized maps take the
    nearest pixel; what lies beyond the image gets the label `ignore`.

    Attributes:
        class_names: Tuple of the names of the labels 0, 1, …; None if they have none.
        ignore: Label of pixels whose class is not known.

    Raises:
        ValueError: `shape` or `dtype` is given, or `ignore` is one of the labels or not in 0..255.
    """

    dtype: str = "uint8"
    class_names: tuple | None = None
    ignore: int = 255

    per_image = True

    def __post_init__(self):
        super().__post_init__()
        if self.shape or self.dtype != "uint8":
            raise ValueError(f"a label map {self.name!r} is uint8 of the size of the image, without shape or dtype")
        object.__setattr__(self, "class_names", self.class_names and tuple(self.class_names))
        if not len(self.class_names or ()) <= self.ignore <= 255:
            raise ValueError(f"ignore={self.ignore} of {self.name!r} must be a label up to 255 that no class has")

    @property
    def padding(self):
        """Label of pixels beyond the image."""
        return self.ignore

    def full_shape(self, count, image_size):
        """Returns the size of the image."""
        return tuple(image_size)

    def move(self, values, matrix, frame=None):
        """Returns the map after a flip, a transposition, a change of scale or a shift; see `Field.move`.

        Args:
            values: uint8 [H, W].
            matrix: float64 [2, 3]; each of its first two columns has one number that is not 0.
            frame: (height, width) of the result.
        """
        if matrix[0, 0] == 0:  # rows and columns change places
            values, matrix = values.T, matrix[:, [1, 0, 2]]
        places = [
            np.floor((np.arange(length) + 0.5 - matrix[axis, 2]) / matrix[axis, axis] + TOLERANCE**2).astype(int)
            for axis, length in ((1, frame[0]), (0, frame[1]))
        ]
        inside = [(place >= 0) & (place < side) for place, side in zip(places, values.shape, strict=True)]
        moved = np.full(tuple(map(int, frame)), self.ignore, np.uint8)
        rows, columns = (place[within] for place, within in zip(places, inside, strict=True))
        moved[np.ix_(*inside)] = values[np.ix_(rows, columns)]
        return moved


STANDARD = (Field("labels", dtype="int32"), Field("crowd", dtype="bool"))


def fields_of(sample):
    """Returns the Fields of a sample with one row per instance: labels, crowd and what its reader declares."""
    return (*STANDARD, *(field for field in sample.get("fields", ()) if not field.per_image))


def maps_of(sample):
    """Returns the Fields of a sample with one array for the image."""
    return tuple(field for field in sample.get("fields", ()) if field.per_image)


def instances(sample, kept):
    """Returns a sample with some of its instances.

    Args:
        sample: A validated sample.
        kept: Indices of the instances, or bool [n].
    """
    names = ("boxes", "masks", *(field.name for field in fields_of(sample)))
    return {**sample, **{name: sample[name][kept] for name in names}}


def move_fields(sample, matrix, frame):
    """Returns the arrays of a sample's Fields after the image was transformed: a dict by name; see `Field.move`."""
    matrix = np.array(matrix, np.float64)
    fields = (*fields_of(sample), *maps_of(sample))
    return {field.name: field.move(sample[field.name], matrix, frame) for field in fields}
