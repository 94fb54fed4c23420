"""Decoded samples in memory, for data sets that are small enough."""

import logging

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.sample import Wrapper

logger = logging.getLogger(__name__)


class Cached(Wrapper):
    """Reads every sample of a data set at construction and keeps it: images decoded, masks cropped to their extent.

    Samples that cannot be read are left out and noted in `skipped`.

    Args:
        dataset: A Dataset.

    Attributes:
        positions: For each sample kept, its position in the data set.
    """

    labels_known = True

    def __init__(self, dataset):
        super().__init__(dataset)
        self.positions, self._kept = [], []
        for position in range(len(dataset)):
            sample = read_or_skip(dataset, position)
            if sample is not None:
                self._kept.append(_packed(sample))
                self.positions.append(position)

    def __len__(self):
        return len(self.positions)

    def decoded(self, channels=3, dtype="uint8"):
        """Reads every sample of the data set again, with images of other channels or another dtype."""
        return Cached(self.dataset.decoded(channels, dtype))

    def labels_at(self, position):
        """Returns the labels of a sample."""
        return self._kept[position][0]["labels"]

    def coco_annotations(self, image_id):
        """Returns the annotations of the data set."""
        return self.dataset.coco_annotations(image_id)

    def read(self, position):
        """Returns a sample from memory; its image is read-only."""
        sample, extents, parts = self._kept[position]
        masks = np.zeros((len(parts), *sample["image"].shape[:2]), bool)
        for mask, (x1, y1, x2, y2), part in zip(masks, extents, parts, strict=True):
            mask[y1:y2, x1:x2] = part
        return {**sample, "masks": masks}


def read_or_skip(dataset, position):
    """Returns the sample at a position, or None where it cannot be read, see `skip`."""
    try:
        return dataset[position]
    except DataError as error:
        skip(dataset, error)
        return None


def skip(dataset, error):
    """Notes an unusable sample in `dataset.skipped` and logs it the first time; raises the error if data is strict.

    All code that goes on without a sample calls this function.
    """
    if getattr(dataset, "strict", False):
        raise error
    skipped = getattr(dataset, "skipped", {})  # for sequences that are no Dataset, see `evaluation.predictions`
    if error.source not in skipped:
        skipped[error.source] = error.reason
        logger.warning("skipped %s", error)


def _packed(sample):
    extents = mask_boxes(sample["masks"]).astype(int)
    parts = [mask[y1:y2, x1:x2].copy() for mask, (x1, y1, x2, y2) in zip(sample["masks"], extents, strict=True)]
    image = sample["image"].view()
    image.setflags(write=False)
    return {**sample, "image": image, "masks": None}, extents, parts
