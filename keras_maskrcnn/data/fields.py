"""Arrays with one row per instance: what a data set declares, and how geometry changes them.

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

    def __post_init__(self):
        if self.name in RESERVED:
            raise ValueError(f"a field cannot have the name {self.name!r}")
        object.__setattr__(self, "shape", tuple(np.atleast_1d(np.array(self.shape, int)).tolist()))

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


@dataclasses.dataclass(frozen=True)
class Points(Field):
    """Points of each instance, for example keypoints: x, y in continuous pixels, and visibility.

    Pixel i covers [i, i + 1), so its centre is at i + 0.5. Visibility 0 means that the point is not labelled; a point
    outside the frame becomes such a point. Other values are kept (COCO: 1 is hidden, 2 is visible). The coordinates of
    a point that is not labelled are 0 after a move.

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


STANDARD = (Field("labels", dtype="int32"), Field("crowd", dtype="bool"))


def fields_of(sample):
    """Returns the Fields of a sample: labels, crowd and what its reader declares."""
    return (*STANDARD, *sample.get("fields", ()))


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
    return {field.name: field.move(sample[field.name], matrix, frame) for field in fields_of(sample)}
