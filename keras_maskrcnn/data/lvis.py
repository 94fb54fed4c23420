"""LVIS: more than a thousand classes on COCO's photos, each photo annotated for some (Gupta, Dollár, Girshick 2019)."""

import numpy as np

from keras_maskrcnn.data.coco import Coco
from keras_maskrcnn.data.sample import DataError


class Lvis(Coco):
    """Reads LVIS' JSON files; there are no crowds.

    Images are found by `coco_url`, which names their folder too: the validation set has photos of COCO's `train2017`
    and `val2017`. Not each photo is annotated for each class: a class without an instance in a photo is known to be
    absent only if `neg_category_ids` lists it, see `absent_at`.

    Args:
        annotations: Path of the JSON file.
        images: The folder that holds `train2017` and `val2017`; or that of the photos themselves.

    Raises:
        DataError: As `Coco`, or the file has no lists of categories per image.
    """

    address = "coco_url"

    def __init__(self, annotations, images):
        super().__init__(annotations, images)
        for index, image in enumerate(self.images):
            for key in ("neg_category_ids", "not_exhaustive_category_ids"):
                image[key] = self._known(image.get(key), f"images[{index}]", key)
            folder, _, name = image["file_name"].rpartition("/")
            if not (self.folder / folder).is_dir():
                image["file_name"] = name

    def _known(self, numbers, place, key):
        """Labels of a list of category ids; a DataError for anything else."""
        try:
            return np.array([self._labels[number] for number in numbers], np.int32)
        except (KeyError, TypeError):
            raise DataError(self.path, f"{place} has no {key}, or one with unknown categories") from None

    def absent_at(self, position):
        """Returns the labels of the classes that are checked to be absent from an image: int32 [n]."""
        return self.images[position]["neg_category_ids"]

    def incomplete_at(self, position):
        """Returns the labels of the classes of which an image shows more instances than are annotated: int32 [n]."""
        return self.images[position]["not_exhaustive_category_ids"]
