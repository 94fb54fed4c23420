"""Data sets whose instances are outlines in text files: shared by `Via`, `LabelMe` and `Yolo`."""

import pathlib
from typing import NamedTuple

import numpy as np
from pycocotools import mask as run_length

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.run_lengths import decode, run_lengths
from keras_maskrcnn.data.sample import Dataset, check_mask_memory, log_dropped

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CORNERS_OF_A_CIRCLE = 64


class Instance(NamedTuple):
    """An annotated instance.

    Attributes:
        name: class name.
        polygons: list of polygons, flat lists x1, y1, x2, y2, … in pixels, or in shares of the image's sides.
        place: where it is in its file, for messages.
    """

    name: str
    polygons: list
    place: str


class Record(NamedTuple):
    """An image and its instances.

    Attributes:
        path: Path of the image file.
        image_id: str.
        instances: list of `Instance`.
        size: (H, W) that the file states, or None.
    """

    path: pathlib.Path
    image_id: str
    instances: list
    size: tuple | None = None


class Outlines(Dataset):
    """Images with polygons; masks are drawn when a sample is read.

    An instance whose mask is empty or cannot be drawn is left out, logged, and noted in `dropped`. An image with an
    EXIF orientation is turned upright, as the tools show it, unless the size in the file fits its stored pixels only.

    Args:
        source: file or folder of the annotations, for messages.
        records: list of `Record`.
        class_names: names of all classes; None takes those of the instances, sorted.
        relative: Whether coordinates are shares of the image's width and height.
        dropped: dict from places to the reasons why they are left out, found by the reader.

    Attributes:
        dropped: dict from places in the annotations to reasons.

    Raises:
        DataError: there is no image, no class, or an instance of another class.
    """

    labels_known = True

    def __init__(self, source, records, class_names=None, relative=False, dropped=None):
        self.source, self.records, self.relative = source, records, relative
        found = {instance.name for record in records for instance in record.instances}
        self.class_names = sorted(found) if class_names is None else list(class_names)
        if not records:
            raise DataError(source, "has no image")
        if not self.class_names:
            raise DataError(source, "has no annotated object, and no class names are given")
        if unknown := sorted(found.difference(self.class_names)):
            raise DataError(source, f"has the class {unknown[0]!r}, which is not one of {', '.join(self.class_names)}")
        self._labels = {name: label for label, name in enumerate(self.class_names, 1)}
        self.dropped = dict(dropped or {})
        log_dropped(source, self.dropped)

    def __len__(self):
        return len(self.records)

    def labels_at(self, position):
        """Returns the labels of the annotations of an image without decoding it: int32 [n]."""
        instances = self.records[position].instances
        return np.array([self._labels[i.name] for i in instances if i.place not in self.dropped], np.int32)

    def read(self, position):
        """Returns one image with its instances."""
        record = self.records[position]
        stored = read_stored(record.path, self.image_type)
        image = stored.turned() if record.size is None else stored.fitted(record.size, self.source, upright=True)
        if record.size not in (None, image.shape[:2]):
            (height, width), (h, w) = image.shape[:2], record.size
            raise DataError(record.path, f"is {width} x {height} pixels, but {w} x {h} in its annotations")
        labels, runs = self._drawn(record, image.shape[:2])
        check_mask_memory(len(runs), image.shape[:2], record.path)
        masks = decode(runs, image.shape[:2])
        source = {"image_id": record.image_id, "source": str(record.path)}
        return {"image": image, "labels": np.array(labels, np.int32), "masks": masks, **source}

    def _drawn(self, record, size):
        """Labels and run lengths of the instances that can be drawn."""
        labels, runs, unusable = [], [], {}
        scale = np.array(size[::-1], float) if self.relative else np.ones(2)
        for instance in record.instances:
            if instance.place in self.dropped:
                continue
            try:
                polygons = [(np.reshape(p, (-1, 2)) * scale).ravel().tolist() for p in instance.polygons]
                run = run_lengths(polygons, size)
                if not run or not run_length.area(run):
                    raise ValueError("its mask is empty")
            except (TypeError, ValueError) as error:
                unusable[instance.place] = str(error)
                continue
            labels.append(self._labels[instance.name])
            runs.append(run)
        log_dropped(self.source, unusable)
        self.dropped.update(unusable)
        return labels, runs


def numbers(values):
    """Returns a list of finite numbers as float64 [n]; raises a ValueError for anything else."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError("its coordinates are not numbers")
    try:
        found = np.array(values, float)
    except OverflowError:
        found = np.array([np.inf])
    if not np.isfinite(found).all():
        raise ValueError("its coordinates are not finite")
    return found


def ellipse(cx, cy, rx, ry, theta=0.0):
    """Polygon of an ellipse: centre, half axes, and turn in radians."""
    angle = np.arange(CORNERS_OF_A_CIRCLE) * (2 * np.pi / CORNERS_OF_A_CIRCLE)
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    turned = np.stack([cx + x * np.cos(theta) - y * np.sin(theta), cy + x * np.sin(theta) + y * np.cos(theta)], axis=1)
    return turned.ravel().tolist()


def rectangle(x, y, width, height):
    """Polygon of a rectangle."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]
