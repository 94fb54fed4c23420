"""The annotations of a COCO file as arrays, filled record by record so that the records need not be in memory."""

import array
import reprlib

import numpy as np

from keras_maskrcnn.data import coco_keypoints
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.run_lengths import is_box
from keras_maskrcnn.data.sample import box_fault


class Annotations:
    """Collects what an index needs of each annotation.

    Args:
        keypoints: Whether annotations with faulty keypoints are unusable.
        boxes_only: Whether annotations without a mask are usable, if they have a box.

    Attributes:
        ids: list of the annotations' ids.
        category_ids: list of the ids of their categories.
    """

    def __init__(self, keypoints=False, boxes_only=False):
        self._boxes_only = boxes_only
        self._keypoints = coco_keypoints.Faults() if keypoints else None
        self.ids, self._image_ids, self.category_ids = [], [], []
        self._places = array.array("q")
        self._boxes = array.array("d")  # x, y, w, h
        self._faults = {}  # from positions to reasons

    def add(self, record, start, end):
        """Adds a record, which is a dict with the three ids, and its place in the file."""
        if reason := _fault(record, self._boxes_only):
            self._faults[len(self.ids)] = reason
        self.ids.append(record["id"])
        self._image_ids.append(record["image_id"])
        self.category_ids.append(record["category_id"])
        self._places.extend((start, end - start))
        self._boxes.extend((0, 0, 1, 1) if reason or "bbox" not in record else record["bbox"])
        if self._keypoints:
            self._keypoints.add(record)

    def arrays(self, path, image_ids, sizes, categories):
        """Returns the arrays of `coco_file.Index`, and a dict from the ids of unusable annotations to reasons.

        Args:
            path: Path of the file, for messages.
            image_ids: ids of the n images.
            sizes: int64 [n, 2], height and width of the images.
            categories: records of the categories in the order of the labels 1, 2, …

        Raises:
            DataError: An annotation belongs to no image or no category of these, or the keypoints of these cannot be
                used.
        """
        category_ids = [category["id"] for category in categories]
        labels = self._positions(path, "category_id", self.category_ids, category_ids) + 1
        images = self._positions(path, "image_id", self._image_ids, image_ids)
        faults = self._all_faults(sizes[images])
        if self._keypoints:
            faults = self._keypoints.found(coco_keypoints.points_of(categories, path)) | faults
        usable = np.ones(len(images), bool)
        usable[list(faults)] = False
        order = np.argsort(images, kind="stable")
        rows = {
            "first": np.searchsorted(images[order], np.arange(len(image_ids) + 1)),
            "annotations": np.array(self._places, np.int64).reshape(-1, 2)[order],
            "labels": labels[order].astype(np.int32),
            "usable": usable[order],
        }
        return rows, {self.ids[position]: faults[position] for position in sorted(faults)}

    def _positions(self, path, key, values, known):
        """Position of each value among the known ids: int64 [m]."""
        places = {number: place for place, number in enumerate(known)}
        try:
            return np.fromiter((places[value] for value in values), np.int64, len(values))
        except KeyError as error:
            index = next(index for index, value in enumerate(values) if value not in places)
            number, value = reprlib.repr(self.ids[index]), reprlib.repr(values[index])
            reason = f"annotation {number} has the unknown {key.removesuffix('_id')} {value}"
            raise DataError(path, reason) from error

    def _all_faults(self, sizes):
        """Reasons by position, also those that depend on the size of the image: int64 [m, 2]."""
        boxes = np.array(self._boxes, np.float64).reshape(-1, 4)
        with np.errstate(invalid="ignore", over="ignore"):
            boxes[:, 2:] += boxes[:, :2]
            inside = (boxes[:, :2] < sizes[:, ::-1]).all(1) & (boxes[:, 2:] > 0).all(1)
            sound = inside & (boxes[:, 2:] > boxes[:, :2]).all(1) & np.isfinite(boxes).all(1)
        faults = dict(self._faults)
        for position in np.flatnonzero(~sound).tolist():
            if fault := box_fault(boxes[position], sizes[position]):
                faults.setdefault(position, f"its box {fault}")
        return faults


def _fault(record, boxes_only):
    """Why an annotation cannot be used whatever its image is, or None."""
    if not record.get("segmentation") and not (boxes_only and "bbox" in record):
        return "its mask is missing"
    if record.get("iscrowd") not in (0, 1, None):
        return f"its iscrowd is {reprlib.repr(record['iscrowd'])}, not 0 or 1"
    if "bbox" in record and not is_box(record["bbox"]):
        return "its box is not four numbers"
    return None
