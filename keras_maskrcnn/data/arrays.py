"""Images and masks in memory."""

import contextlib

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_type import RGB, ImageType
from keras_maskrcnn.data.run_lengths import decode, run_lengths
from keras_maskrcnn.data.sample import Dataset


class Arrays(Dataset):
    """Samples from arrays, the shortest way to a data set.

    Args:
        images: sequence of uint8 or uint16 `[H, W, C]` or, if grey, `[H, W]`; or one array `[N, H, W, C]`. The type of
            the first image is the data set's `image_type`; `decoded` converts all to another one.
        masks: sequence with the objects of each image: an array of ids `[H, W]` (0 is background, k is object k), bool
            `[n, H, W]`, or a list of n polygons, each a flat list x1, y1, x2, y2, … in pixels.
        labels: sequence with the label of each object, from 1 to K, or its class name; None if there is one class.
        class_names: list of K names; None takes "object" for one class, else the names in `labels`, sorted.

    Raises:
        DataError: the lengths differ, or labels have no names. Samples are checked when they are read.
    """

    def __init__(self, images, masks, labels=None, class_names=None):
        self.images, self.masks, self.labels = images, masks, labels
        with _one_line("Arrays"):
            parts = {"images": images, "masks": masks} | ({} if labels is None else {"labels": labels})
            lengths = {name: len(part) for name, part in parts.items()}
            if len(set(lengths.values())) > 1:
                raise DataError("Arrays", ", ".join(f"{count} {name}" for name, count in lengths.items()))
            self.image_type = _type_of(images)
            self.class_names = _names(labels) if class_names is None else [str(name) for name in class_names]

    def __len__(self):
        return len(self.images)

    def read(self, position):
        """Returns one image with its objects."""
        source = f"Arrays[{position}]"
        with _one_line(source):
            return self._read(position, source)

    def _read(self, position, source):
        image = self.image_type.convert(np.asarray(self.images[position]))
        masks = _masks(self.masks[position], image.shape[:2], source)
        if self.labels is None:
            labels = np.ones(len(masks), np.int32)
        else:
            labels = [self._label(label, source) for label in self.labels[position]]
        labels = np.array(labels, np.int32)
        return {"image": image, "labels": labels, "masks": masks, "image_id": position, "source": source}

    def _label(self, label, source):
        if not isinstance(label, str):
            return int(label)
        if label not in self.class_names:
            raise DataError(source, f"the label {label!r} is not one of {', '.join(self.class_names)}")
        return self.class_names.index(label) + 1


@contextlib.contextmanager
def _one_line(source):
    """Turns the errors of arrays, lists and numbers of other kinds inside the block into a DataError."""
    try:
        yield
    except DataError:
        raise
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(source, str(error)) from error


def _names(labels):
    if labels is None:
        return ["object"]
    found = {label for of_image in labels for label in of_image}
    if not found or not all(isinstance(label, str) for label in found):
        raise DataError("Arrays", "labels are numbers: give class_names, the names of 1, 2, …")
    return sorted(found)


def _type_of(images):
    """`ImageType` of the first image; R, G, B where there is none, or it has no type of an image."""
    first = np.asarray(images[0]) if len(images) else np.zeros((1, 1, 3), np.uint8)
    try:
        return ImageType(1 if first.ndim == 2 else first.shape[-1], first.dtype.name)
    except (ValueError, IndexError):
        return RGB


def _masks(masks, size, source):
    """Masks of one image: bool `[n, H, W]`."""
    if isinstance(masks, list) and masks and isinstance(masks[0], list | tuple):
        try:
            runs = [run_lengths([np.asarray(polygon, float).ravel().tolist()], size) for polygon in masks]
        except ValueError as error:
            raise DataError(source, f"polygons: {error}") from error
        if None in runs:
            raise DataError(source, f"polygon {runs.index(None)} has fewer than three corners")
        return decode(runs, size)
    masks = np.asarray(masks)
    if masks.shape == size and masks.dtype.kind in "iu":
        numbers = np.unique(masks)
        return masks == numbers[numbers > 0][:, None, None]
    return masks
