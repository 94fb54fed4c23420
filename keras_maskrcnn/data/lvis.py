"""LVIS: more than a thousand classes on COCO's photos, each photo annotated for some (Gupta, Dollár, Girshick 2019)."""

import os

import numpy as np

from keras_maskrcnn.data.coco import Coco
from keras_maskrcnn.data.coco_file import Options

ABSENT, INCOMPLETE = "neg_category_ids", "not_exhaustive_category_ids"


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

    options = Options(address="coco_url", lists=(ABSENT, INCOMPLETE))

    def __init__(self, annotations, images):
        super().__init__(annotations, images)
        self._labels = {number: label for label, number in enumerate(self.category_ids, 1)}

    def _image(self, record):
        record = super()._image(record)
        folder, _, name = record["file_name"].rpartition("/")
        return record if os.path.isdir(self.folder / folder) else {**record, "file_name": name}

    def _listed(self, position, key):
        return np.array([self._labels[number] for number in self.images[position][key]], np.int32)

    def absent_at(self, position):
        """Returns the labels of the classes that are checked to be absent from an image: int32 [n]."""
        return self._listed(position, ABSENT)

    def incomplete_at(self, position):
        """Returns the labels of the classes of which an image shows more instances than are annotated: int32 [n]."""
        return self._listed(position, INCOMPLETE)
