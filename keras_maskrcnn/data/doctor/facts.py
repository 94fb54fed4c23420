"""What is known of an image while it is checked, and what is kept of it afterwards."""

import dataclasses
import functools
import hashlib
from typing import NamedTuple

import numpy as np

from keras_maskrcnn.data.doctor.duplicates import thumbnail
from keras_maskrcnn.data.doctor.regions import overlaps
from keras_maskrcnn.data.doctor.stated import Stated, stated_by
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import opened, orientation_of
from keras_maskrcnn.data.mini_masks import mask_boxes


class File(NamedTuple):
    """The header of an image file.

    Attributes:
        mode: of Pillow, such as "RGB", "RGBA", "L", "P", "CMYK" or "I;16".
        size: (H, W) as stored.
        orientation: EXIF orientation, 1..8.
        frames: number of frames.
        opaque: whether the image has no transparent pixel.
    """

    mode: str
    size: tuple
    orientation: int
    frames: int
    opaque: bool

    @property
    def upright(self):
        """(H, W) after the EXIF orientation is applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size


@dataclasses.dataclass
class Facts:
    """An image while it is checked.

    Attributes:
        source: path or description.
        sample: the reader's sample, or None where it raised `error`.
        error: DataError or None.
        stated: `stated.Stated`.
        file: `File`, or None for images in memory and files that are no image.
        dropped: dict from the keys of instances that the reader leaves out to reasons.
        boxes_of_masks: whether the boxes of the sample are those of its masks.
    """

    source: str
    sample: dict | None
    error: DataError | None
    stated: Stated
    file: File | None
    dropped: dict
    boxes_of_masks: bool = False

    @functools.cached_property
    def boxes(self):
        """Boxes of the masks: float32 [n, 4]."""
        return self.sample["boxes"] if self.boxes_of_masks else mask_boxes(self.sample["masks"])

    @functools.cached_property
    def crops(self):
        """Each mask cropped to its box: list of n bool arrays."""
        boxes = self.boxes.astype(int)
        return [mask[y1:y2, x1:x2] for mask, (x1, y1, x2, y2) in zip(self.sample["masks"], boxes, strict=True)]

    @functools.cached_property
    def areas(self):
        """Pixels of each mask: int64 [n]."""
        return np.array([crop.sum() for crop in self.crops], np.int64)

    @functools.cached_property
    def shared(self):
        """Pixels that pairs of instances share, see `regions.overlaps`; crowds are left out."""
        crowd = self.sample["crowd"]
        pairs = overlaps(self.sample["masks"], self.boxes)
        return {(i, j): pixels for (i, j), pixels in pairs.items() if not crowd[i] and not crowd[j]}

    @functools.cached_property
    def kept(self):
        """The stated instances of the sample's instances, in its order; empty where they cannot be paired."""
        kept = [instance for instance in self.stated.instances if instance.key not in self.dropped]
        return kept if self.sample is not None and len(kept) == len(self.sample["labels"]) else []

    @functools.cached_property
    def size(self):
        """(H, W) that stated coordinates refer to, or None."""
        if self.sample is not None:
            return self.sample["image"].shape[:2]
        return self.stated.size or (self.file.upright if self.file else None)

    def corners(self, instance):
        """Corners of a stated instance in pixels, of its polygons, or else of its box: float64 [m, 2]."""
        values = [polygon for polygon in instance.polygons or [] if isinstance(polygon, list) and len(polygon) % 2 == 0]
        try:
            points = np.array([value for polygon in values for value in polygon], float).reshape(-1, 2)
        except (TypeError, ValueError):
            points = np.zeros((0, 2))
        if not len(points) and instance.box is not None:
            points = np.array(instance.box, float).reshape(2, 2)
        points = points * self.size[::-1] if self.stated.relative and self.size else points
        return points[np.isfinite(points).all(axis=1)]


class Row(NamedTuple):
    """What is kept of an image; its arrays have one row per instance.

    Attributes:
        position: in its data set.
        source: path or description.
        image_id: of the sample.
        size: (H, W).
        grey: whether red, green and blue are equal in all pixels.
        brightness: median of the grey values, 0..255.
        digest: SHA-256 of the pixels.
        thumbnail: uint8, see `duplicates`.
        boxes: float32 [n, 4].
        labels: int32 [n].
        areas: int64 [n], pixels of the masks.
        crowd: bool [n].
    """

    position: int
    source: str
    image_id: object
    size: tuple
    grey: bool
    brightness: float
    digest: bytes
    thumbnail: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of(cls, position, facts):
        """Returns the row of an image that can be read."""
        sample = facts.sample
        image = sample["image"]
        small = thumbnail(image)
        return cls(
            position,
            sample["source"],
            sample["image_id"],
            image.shape[:2],
            bool((image == image[..., :1]).all()),
            float(np.median(small)),
            hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).data).digest(),
            small,
            *(sample[name] for name in ("boxes", "labels")),
            facts.areas,
            sample["crowd"],
        )


class Part:
    """A data set while it is inspected.

    Args:
        name: such as "train".
        dataset: `Dataset`.

    Attributes:
        files: what its annotation files state, see `stated`.
        rows: list of `Row`, of the images that can be read.
        unreadable: dict from the positions of the others to reasons.
        modes: dict from sources to modes of Pillow, of the images that are files.
    """

    def __init__(self, name, dataset):
        self.name, self.dataset = name, dataset
        self.files = stated_by(dataset)
        self.rows, self.unreadable, self.modes = [], {}, {}

    def facts(self, position):
        """Returns the `Facts` of the image at a position."""
        stated, sample, error = self.files.image(position), None, None
        try:
            sample = self.dataset[position]
        except DataError as caught:
            error = caught
        path = stated.path or (sample or {}).get("source")
        source, of_masks = str(path or error.source), self.files.boxes_of_masks
        return Facts(source, sample, error, stated, _file(path), self.dataset.dropped, of_masks)


def _file(path):
    try:
        with opened(path, "an image") as image:
            opaque = "A" not in image.getbands() and "transparency" not in image.info
            opaque = opaque or image.convert("RGBA").getextrema()[3] == (255, 255)
            size = image.height, image.width
            return File(image.mode, size, orientation_of(image), getattr(image, "n_frames", 1), opaque)
    except (DataError, TypeError):  # the reader says why a file cannot be read; other sources are no files
        return None
