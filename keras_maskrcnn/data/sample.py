"""The sample contract: the arrays that every reader returns.

A sample is a dict of NumPy arrays:

    image     uint8 [H, W, 3], RGB; or of the data set's `image_type`: uint8 or uint16 [H, W, C] of 1 to 8 channels
    boxes     float32 [n, 4], x1, y1, x2, y2 in continuous pixels (pixel i covers [i, i + 1))
    labels    int32 [n], 1..K (0 is background, which no instance has)
    masks     bool [n, H, W]
    crowd     bool [n], True where the mask covers a group that is not counted
    image_id  int or str
    source    str, a path or a description, for messages
    fields    tuple of `fields.Field`, the further arrays with one row per instance that the reader declares, and of
              `fields.LabelMap`, maps of the image; each is in the sample under its name
"""

import abc
import collections.abc
import copy
import functools
import logging
import math
import operator
import os

import numpy as np

from keras_maskrcnn.data.errors import DataError, one_line
from keras_maskrcnn.data.fields import STANDARD
from keras_maskrcnn.data.image_type import RGB, ImageType
from keras_maskrcnn.data.mini_masks import mask_boxes

logger = logging.getLogger(__name__)

MAX_MASK_BYTES = 2**31  # of the masks of one image, one byte per pixel; assign another number to change the limit
CLIP_TOLERANCE = 1.0  # pixels: annotation tools round outwards


class Dataset(collections.abc.Sequence):
    """A reader: a sequence of validated samples.

    A subclass sets `class_names` and implements `__len__` and `read`.

    Attributes:
        class_names: List of K str; class k is `class_names[k - 1]`.
        fields: Tuple of `fields.Field`: arrays with one row per instance that the samples hold beyond boxes, labels,
            masks and crowd, and maps of the image. They pass through augmentation and wrappers into the targets of a
            batch.
        strict: Whether bad input stops the program instead of being left out, see `strict.Strict`.
        image_type: `image_type.ImageType` of the images: uint8 R, G, B unless a subclass or `decoded` says otherwise.
        labels_known: Whether `labels_at` reads no file and decodes nothing.
    """

    class_names: collections.abc.Sequence[str] = ()
    fields: tuple = ()
    strict = False
    image_type = RGB
    labels_known = False

    @abc.abstractmethod
    def read(self, position):
        """Returns the sample at a position in 0..len(self) - 1; raises DataError if it cannot be read."""

    def labels_at(self, position):
        """Returns the labels of the sample at a position: int32 [n].

        Readers that have them in memory override this, so that no image is decoded. Their result may include instances
        that `read` finds to be unusable.
        """
        return self[position]["labels"]

    def coco_annotations(self, image_id):
        """Returns the ground truth of an image for COCO scores, as its COCO file states it; None for other data.

        Args:
            image_id: `image_id` of a sample.

        Returns:
            List of dicts with `category_id` (the label), `bbox`, `area`, `iscrowd`, `segmentation` (run lengths), and
            `unreadable`, the kinds of overlap ("bbox", "segm") for which the file states nothing that can be read.
            Annotations that samples leave out are among them.
        """
        return None

    @property
    def num_classes(self):
        """K, the number of classes without background."""
        return len(self.class_names)

    def decoded(self, channels=3, dtype="uint8"):
        """Returns this data set with images of other channels or another dtype, see `data.read_image`.

        Args:
            channels: 1 to 8.
            dtype: "uint8" or "uint16".
        """
        result = copy.copy(self)
        result.__dict__.pop("skipped", None)
        result.image_type = ImageType(channels, dtype)
        return result

    @functools.cached_property
    def skipped(self):
        """Samples that a pipeline could not use: a dict from source to reason."""
        return {}

    @functools.cached_property
    def dropped(self):
        """Annotations that the reader left out so far: a dict from their number or place to the reason."""
        return {}

    def __getitem__(self, index):
        """Returns the validated sample at an index, or a Subset for a slice."""
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        position = operator.index(index)
        position += len(self) if position < 0 else 0
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} of a data set of {len(self)} samples")
        return validate(self.read(position), self.num_classes, self.fields, self.image_type)


class Wrapper(Dataset):
    """A data set whose samples come from another one.

    Args:
        dataset: A Dataset. Its classes, fields, type of images, and what is left out of it are those of the wrapper.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self.class_names, self.fields = dataset.class_names, dataset.fields

    @property
    def image_type(self):
        """The type of the images of the wrapped data set."""
        return self.dataset.image_type

    def decoded(self, channels=3, dtype="uint8"):
        """Returns a wrapper of the data set with images of other channels or another dtype."""
        result = copy.copy(self)
        result.dataset = self.dataset.decoded(channels, dtype)
        return result

    @property
    def skipped(self):
        """The skipped samples of the wrapped data set."""
        return self.dataset.skipped

    @property
    def labels_known(self):
        """Whether the wrapped data set knows its labels."""
        return self.dataset.labels_known

    @property
    def dropped(self):
        """The annotations that the wrapped data set left out."""
        return self.dataset.dropped

    @property
    def strict(self):
        """Whether the wrapped data set stops at bad input."""
        return self.dataset.strict


class Same(Wrapper):
    """A wrapper with the samples of the data set in their order, which `read` may change."""

    def __len__(self):
        return len(self.dataset)

    def labels_at(self, position):
        """Returns the labels of a sample of the data set."""
        return self.dataset.labels_at(position)

    def coco_annotations(self, image_id):
        """Returns the annotations of the data set."""
        return self.dataset.coco_annotations(image_id)


class Subset(Wrapper):
    """Some samples of a data set, in the given order.

    Args:
        dataset: A Dataset.
        indices: Positions in it; negative ones count from the end.
    """

    def __init__(self, dataset, indices):
        super().__init__(dataset)
        indices = np.fromiter(map(operator.index, indices), np.int64)
        self.indices = indices + len(dataset) * (indices < 0)
        outside = np.flatnonzero((self.indices < 0) | (self.indices >= len(dataset)))
        if outside.size:
            raise IndexError(f"index {indices[outside[0]]} of a data set of {len(dataset)} samples")

    def __len__(self):
        return len(self.indices)

    def labels_at(self, position):
        """Returns the labels of a sample of the original data set."""
        return self.dataset.labels_at(int(self.indices[position]))

    def coco_annotations(self, image_id):
        """Returns the annotations of the original data set."""
        return self.dataset.coco_annotations(image_id)

    def read(self, position):
        """Returns a sample of the original data set."""
        return self.dataset[self.indices[position]]


def validate(sample, num_classes, fields=(), image_type=RGB):
    """Checks a sample against the contract and returns it with the contract's dtypes.

    Boxes that overlap the border by at most one pixel are clipped. `boxes` may be missing (then they are those of the
    masks), and so may `crowd` (then no instance is a crowd).

    Args:
        sample: Dict as in the module's docstring; arrays may be lists or have other integer or float dtypes.
        num_classes: K; labels must lie in 1..K.
        fields: Tuple of `fields.Field`, the further arrays that the sample must hold.
        image_type: `ImageType` that the image must have.

    Returns:
        A new dict with exactly the contract's keys and the names of the fields.

    Raises:
        DataError: The sample does not fulfil the contract.
    """
    source = sample.get("source", "sample")
    missing = [key for key in ("image", "labels", "masks", *(field.name for field in fields)) if key not in sample]
    if missing:
        raise DataError(source, f"the sample has no {', '.join(missing)}")
    image = _checked_image(sample["image"], image_type, source)
    labels = _checked_labels(sample["labels"], num_classes, source)
    masks = _checked_masks(sample["masks"], len(labels), image.shape[:2], source)
    boxes = sample["boxes"] if "boxes" in sample else mask_boxes(masks)
    boxes = _checked_boxes(boxes, len(labels), image.shape[:2], source)
    sample = {**sample, "labels": labels, "crowd": sample.get("crowd", np.zeros(len(labels), bool))}
    return {
        "image": image,
        "boxes": boxes,
        "masks": masks,
        **{field.name: _checked_field(field, sample, source) for field in (*STANDARD, *fields)},
        "image_id": sample.get("image_id", source),
        "source": source,
        "fields": tuple(fields),
    }


def box_fault(box, image_size, tolerance=math.inf):
    """Returns why a box cannot be used, or None.

    Args:
        box: Four numbers x1, y1, x2, y2 in pixels.
        image_size: (H, W).
        tolerance: Pixels by which the box may extend over the border of the image.
    """
    x1, y1, x2, y2 = map(float, box)
    height, width = image_size
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        return "is not finite"
    if x2 <= x1 or y2 <= y1:
        return "has no width" if x2 <= x1 else "has no height"
    if x1 >= width or y1 >= height or min(x2, y2) <= 0 or max(-x1, -y1, x2 - width, y2 - height) > tolerance:
        return f"lies outside the image of {width} x {height} pixels"
    return None


def check_mask_memory(count, size, source):
    """Raises a DataError if `count` masks of `size` (H, W) take more than `MAX_MASK_BYTES`."""
    if count * size[0] * size[1] > MAX_MASK_BYTES:
        masks = f"its {count} masks of {size[1]} x {size[0]} pixels"
        raise DataError(source, f"{masks} take more than {__name__}.MAX_MASK_BYTES = {MAX_MASK_BYTES}")


def refuse_path(dataset):
    """Raises a ValueError if a path is given in place of a data set."""
    if isinstance(dataset, str | os.PathLike):
        raise ValueError(f"{os.fspath(dataset)} is a path, not a data set: open it by data.open or data.splits")


def log_fields(path, dataset, kind, written=()):
    """Logs the fields of a data set that a kind of file cannot hold and that are not `written`."""
    names = ", ".join(field.name for field in dataset.fields if field not in written)
    if names:
        logger.warning("%s: %s left out, which %s files do not hold", path, names, kind)


def log_dropped(path, dropped):
    """Logs how many annotations a reader left out: `dropped` is a dict from their numbers to reasons."""
    if dropped:
        first, reason = next(iter(dropped.items()))
        annotations = f"{len(dropped)} annotation{'s' * (len(dropped) > 1)}"
        logger.warning("%s", one_line(f"{path}: {annotations} left out ({first}: {reason})"), extra={"dropped": True})


def _checked_image(image, image_type, source):
    image = np.asarray(image)
    if image.dtype != image_type.dtype:
        raise DataError(source, f"the image is {image.dtype}, not {image_type.dtype}")
    if not image_type.fits(image):
        want = f"[height, width, {image_type.channels}]"
        raise DataError(source, f"the image has shape {list(image.shape)}, not {want}")
    return image


def _checked_labels(labels, num_classes, source):
    labels = np.asarray(labels)
    labels = labels.astype(np.int32) if labels.size == 0 else labels
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(source, f"labels are {labels.dtype} of shape {list(labels.shape)}, not integers of shape [n]")
    wrong = np.flatnonzero((labels < 1) | (labels > num_classes))
    if wrong.size:
        raise DataError(source, f"label {labels[wrong[0]]} of instance {wrong[0]} is not in 1..{num_classes}")
    return labels.astype(np.int32)


def _checked_boxes(boxes, count, image_size, source):
    boxes = np.asarray(boxes)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.shape != (count, 4) or boxes.dtype.kind not in "iuf":
        raise DataError(source, f"boxes have shape {list(boxes.shape)} for {count} labels, not [{count}, 4]")
    height, width = image_size
    limits = np.array([width, height, width, height], np.float32)
    boxes = boxes.astype(np.float32)
    for index, box in enumerate(boxes):
        if fault := box_fault(box, image_size, CLIP_TOLERANCE):
            corners = ", ".join(f"{value:g}" for value in box)
            raise DataError(source, f"box {index} ({corners}) {fault}")
    return np.clip(boxes, 0, limits)


def _checked_masks(masks, count, image_size, source):
    masks = np.asarray(masks)
    masks = np.zeros((0, *image_size), bool) if masks.size == 0 and count == 0 else masks
    if masks.shape != (count, *image_size) or masks.dtype.kind not in "biu":
        want = [count, *image_size]
        raise DataError(source, f"masks are {masks.dtype} of shape {list(masks.shape)}, not bool of shape {want}")
    masks = masks.astype(bool, copy=False)
    for index, mask in enumerate(masks):
        if not mask.any():
            raise DataError(source, f"mask {index} is empty")
    return masks


def _checked_field(field, sample, source):
    values, count = np.asarray(sample[field.name]), len(sample["labels"])
    if not field.per_image and values.size == 0 and count == 0:
        values = np.zeros((0, *field.shape), field.dtype)
    size = np.shape(sample["image"])[:2]
    want = list(field.full_shape(count, size))
    if list(values.shape) != want:
        of = f"an image of {size[1]} x {size[0]} pixels" if field.per_image else f"{count} labels"
        raise DataError(source, f"{field.name} has shape {list(values.shape)} for {of}, not {want}")
    is_flag = field.dtype == "bool" and values.dtype.kind in "iu"
    if not is_flag and not np.can_cast(values.dtype, field.dtype, "same_kind"):
        raise DataError(source, f"{field.name} is {values.dtype}, not {field.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(source, f"{field.name} holds numbers that are not finite")
    return values.astype(field.dtype)
