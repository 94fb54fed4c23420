"""Label maps from the masks of instances, for semantic segmentation with data of objects."""

import numpy as np

from keras_maskrcnn.data.fields import LabelMap
from keras_maskrcnn.data.sample import Same

NAME = "semantic"


class SemanticMasks(Same):
    """A data set whose samples also have the field `semantic`, uint8 [H, W]: the class of each pixel from the masks.

    Pixels outside all masks have the label 0. Where masks overlap, the smallest one has the pixel. A crowd region has
    the label `ignore`, except where an object is.

    Args:
        dataset: A Dataset without such a field.
        ignore: Label of crowd regions, and of pixels beyond an image in a batch.

    Raises:
        ValueError: The data set has the field already, or `ignore` is the label of a class.
    """

    def __init__(self, dataset, ignore=255):
        super().__init__(dataset)
        if label_map(dataset) is not None:
            raise ValueError(f"{type(dataset).__name__} has the field {NAME!r} already")
        self.ignore = ignore
        self.fields = (*dataset.fields, LabelMap(NAME, class_names=("background", *self.class_names), ignore=ignore))

    def read(self, position):
        """Returns a sample of the original data set with its map."""
        sample = self.dataset[position]
        areas = sample["masks"].sum(axis=(1, 2))
        semantic = np.zeros(sample["image"].shape[:2], np.uint8)
        for index in np.lexsort((-areas, ~sample["crowd"])):  # crowds first, then from the largest to the smallest
            label = self.ignore if sample["crowd"][index] else sample["labels"][index]
            semantic[sample["masks"][index]] = label
        return {**sample, NAME: semantic}


def label_map(dataset):
    """Returns the `LabelMap` named "semantic" of a data set, or None."""
    return next((field for field in dataset.fields if field.name == NAME), None)


def with_label_map(dataset):
    """Returns the data set, or where it has no map `SemanticMasks` of it."""
    return dataset if label_map(dataset) is not None else SemanticMasks(dataset)
