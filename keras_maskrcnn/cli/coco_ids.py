"""The ids of a COCO file for image files and for the classes of a model."""

import collections
import os
import pathlib

from keras_maskrcnn.data import Coco, CocoPanoptic, DataError
from keras_maskrcnn.data.coco_layouts import is_panoptic
from keras_maskrcnn.data.json_text import read_json


class CocoIds:
    """Looks up ids in a COCO file, which may be a panoptic one: of images by file name, of categories by class name.

    Args:
        path: the COCO file.
        class_names: the model's class names, or None.

    Attributes:
        category_ids: one id per class of the model, None where the file has no category of this name.

    Raises:
        DataError: if the file is not a COCO file, or has no category of the model.
    """

    def __init__(self, path, class_names):
        records, names, numbers = _listed(path)
        self.path, self._records = path, collections.defaultdict(list)
        for record in records:
            self._records[pathlib.PurePosixPath(str(record["file_name"])).parts].append(record)
        ids = dict(zip(names, numbers, strict=True))
        self.category_ids = [ids.get(name) for name in class_names or ()]
        if all(number is None for number in self.category_ids):
            known = ", ".join(class_names or ["no class names"])
            raise DataError(path, f"the categories are {', '.join(names)}, the model has {known}")

    def record(self, path):
        """The record of an image in the file: the one whose `file_name` is the longest end of the path.

        Raises:
            DataError: if there is none, or more than one.
        """
        parts = pathlib.Path(os.path.abspath(path)).parts
        found = next(filter(None, (self._records.get(parts[start:]) for start in range(len(parts)))), [])
        if len(found) != 1:
            many = f"{len(found)} images of this file name" if found else "no such image"
            raise DataError(path, f"{self.path} lists {many}")
        return found[0]


def _listed(path):
    """(records of images, names of categories, their ids) of a COCO or COCO panoptic file; no image is read."""
    if is_panoptic(path):
        found = CocoPanoptic(path, path.parent, path.parent, allow_outside=True)
        records = [{"height": None, "width": None} | image for image in read_json(path)["images"]]
        return records, [*found.class_names, *found.fields[0].class_names[1:]], found.category_ids
    found = Coco(path, path.parent, allow_outside=True)
    return found.images, found.class_names, found.category_ids
