"""Turns one sample into one row of a batch: augmented, resized, padded to static shapes."""

import dataclasses
import logging

import numpy as np

from keras_maskrcnn.data.augment import Augment
from keras_maskrcnn.data.fields import STANDARD, instances, move_fields
from keras_maskrcnn.data.image_type import RGB
from keras_maskrcnn.data.mini_masks import crop_masks, place_masks, resample
from keras_maskrcnn.ops.placement import fitted_size

logger = logging.getLogger(__name__)

INPUTS = ("images", "sizes", "image_index")  # all other arrays of a row are targets


class Prepare:
    """Turns a sample into the arrays of one batch row.

    Args:
        image_size: (H, W) of the canvas. An image is resized to fit in it, keeping its aspect; the rest, at the bottom
            and on the right, is zero.
        max_instances: N, rows of the targets. If a sample has more, the crowd regions are kept, because the anchors in
            them must be ignored in training, and then the largest of the other instances.
        mask_size: M, the side of the masks cropped to their boxes; "canvas" for masks of the whole canvas; or None for
            rows without masks.
        augment: A callable (sample, rng) -> sample, or None. One with a true attribute `mixes` gets
            `partner` as a third argument.
        fields: Tuple of `fields.Field` that the samples hold beyond the standard ones.
        antialias: Whether images are smoothed where they shrink. None: as the model that is trained, see `follow`.
        image_type: `ImageType` of the samples.

    Attributes:
        overfull: Dict from the position of a sample to the number of its instances, where they are more than N. The
            first one is logged.
    """

    def __init__(self, image_size, max_instances, mask_size, augment, fields=(), antialias=None, image_type=RGB):
        self.image_type, self.fields = image_type, (*STANDARD, *fields)
        self.image_size, self.max_instances, self.mask_size = tuple(image_size), max_instances, mask_size
        if isinstance(augment, Augment) and augment.crop in (None, "canvas") and augment.fit is None:
            augment = dataclasses.replace(augment, fit=self.image_size)
        self.augment = augment
        self._given, self.overfull = antialias, {}
        self.keep_aspect = True
        self._set(antialias is not False)

    def follow(self, antialias, keep_aspect=True):
        """Resizes images by the rule of a model, so that it is trained on pixels as it gets them at inference.

        Args:
            antialias: Whether images are smoothed where they shrink.
            keep_aspect: Whether their aspect is kept; otherwise they fill the canvas.

        Raises:
            ValueError: The data was made with the other rule.
        """
        if self._given not in (None, antialias):
            raise ValueError(f"the data has antialias={self._given}, the model's resize rule {antialias}")
        self.keep_aspect = keep_aspect
        self._set(antialias)

    def _set(self, antialias):
        self.antialias = antialias
        if isinstance(self.augment, Augment):
            self.augment = dataclasses.replace(self.augment, antialias=antialias)

    def signature(self):
        """Returns the (shape, dtype) of each array of a row, by its name."""
        (height, width), count = self.image_size, self.max_instances
        mask = self.image_size if self.mask_size == "canvas" else (self.mask_size, self.mask_size)
        masks = {} if self.mask_size is None else {"masks": ((count, *mask), np.uint8)}
        return {
            "images": ((height, width, self.image_type.channels), np.dtype(self.image_type.dtype)),
            "sizes": ((2,), np.float32),
            "image_index": ((), np.int32),
            "boxes": ((count, 4), np.float32),
            **masks,
            "valid": ((count,), np.bool_),
            **{f.name: (f.full_shape(count, self.image_size), np.dtype(f.dtype)) for f in self.fields},
        }

    def __call__(self, sample, rng, index, partner=None):
        """Prepares one sample.

        Args:
            sample: A validated sample.
            rng: numpy.random.Generator for the augmentation.
            index: The sample's position in its data set, returned as `image_index`.
            partner: Function from `rng` to another sample of the data set, for augmentations that mix two samples.

        Returns:
            Dict with the arrays of `signature`.
        """
        if self.augment is not None:
            mixed = [partner] if getattr(self.augment, "mixes", False) else []
            sample = self.augment(sample, rng, *mixed)
        row = {name: np.zeros(shape, dtype) for name, (shape, dtype) in self.signature().items()}
        image = sample["image"]
        size = fitted_size(image.shape[:2], self.image_size, self.keep_aspect)
        row["images"][: size[0], : size[1]] = _resize(image, size, self.antialias)
        row["sizes"][:] = size
        row["image_index"] = np.int32(index)
        sample = self._largest(sample, index)
        boxes, masks = sample["boxes"], sample["masks"]
        count, (down, across) = len(boxes), size / image.shape[:2]
        row["boxes"][:count] = boxes * [across, down, across, down]
        moved = move_fields(sample, [[across, 0, 0], [0, down, 0]], size)
        for field in self.fields:
            row[field.name][:] = field.padding
            values = moved[field.name]
            row[field.name][tuple(map(slice, values.shape))] = values
        if self.mask_size == "canvas":
            row["masks"][:count, : size[0], : size[1]] = place_masks(masks, size)
        elif self.mask_size is not None:  # at the resolution of the sample, so that masks are resampled once
            row["masks"][:count] = crop_masks(masks, boxes, self.mask_size)
        row["valid"][:count] = True
        return row

    def _largest(self, sample, index):
        """Returns the sample with the instances that fit into the targets, in their order."""
        boxes = sample["boxes"]
        if len(boxes) <= self.max_instances:
            return sample
        self.note_overfull({index: len(boxes)}, sample["source"])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return instances(sample, np.sort(np.lexsort((-areas, ~sample["crowd"]))[: self.max_instances]))

    def note_overfull(self, counts, source):
        """Adds to `overfull`; the first call with any logs how many images have too many instances.

        Args:
            counts: Dict from positions of samples to numbers of instances.
            source: What the log names: an image, or a data set with the number of its images.
        """
        is_first = not self.overfull
        self.overfull.update(counts)  # before the slow log, as threads share it
        if counts and is_first:
            most = max(counts.values())
            found = f"{most} instances" if len(counts) == 1 else f"{len(counts)} images with up to {most} instances"
            rule = "kept are crowd regions, then the largest instances"
            logger.warning("%s: %s, more than max_instances=%d: %s", source, found, self.max_instances, rule)


def split(row):
    """Returns (x, y), the inputs and the targets among the arrays of a row or of a batch."""
    return {name: row[name] for name in INPUTS}, {name: row[name] for name in row if name not in INPUTS}


def _resize(image, size, antialias):
    height, width = image.shape[:2]
    return image if (height, width) == tuple(size) else resample(image, (0, 0, width, height), size, antialias)
