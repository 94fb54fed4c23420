"""TFRecord files in the schema of the TensorFlow Object Detection API (Huang et al. 2017), with masks.

The features of an image are named in `object_detection/dataset_tools/create_coco_tf_record.py`: boxes normalised to the
image's sides, masks as PNG files of 0 and 1. `to_tf_record` writes them.
"""

import re

import numpy as np
from pycocotools import mask as run_length

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.id_masks import read_ids
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.record_shards import Shards
from keras_maskrcnn.data.run_lengths import decode
from keras_maskrcnn.data.sample import Dataset, box_fault, check_mask_memory, log_dropped
from keras_maskrcnn.data.tf_messages import features_of, read_label_map
from keras_maskrcnn.data.urls import as_path

LABEL_MAP = "label_map.pbtxt"
SIDES = ("xmin", "ymin", "xmax", "ymax")
PIXELS = "image/object/bbox/pixels"  # of this library: boxes of full precision, x1, y1, x2, y2 one after the other
TOLERANCE = 1e-2  # pixels by which those and the normalised boxes may differ


class TfRecord(Dataset):
    """Reads images and their objects from TFRecord files, each record when it is asked for.

    The places of the records are in the index beside the files, or are found by walking through them once, see
    `record_shards.Shards`: 8 bytes of memory per image, and nothing of its annotations. The checksum of a record is
    verified when it is read. TensorFlow is needed for URLs only, the package `google-crc32c` always. An object whose
    box or mask cannot be used, or whose label is not in the label map, is left out, logged and noted in `dropped`.
    Images are used as stored, as TensorFlow's decoders do.

    Args:
        path: file, the name of sharded files without `-00000-of-00010`, or a pattern such as `train.record-*`; str,
            Path, or a URL such as `gs://bucket/train.record-*`.
        label_map: path of the label map; None takes `label_map.pbtxt` beside the records, or the only `.pbtxt` there.

    Attributes:
        files: list of the paths, in order.
        class_names: names in the order of the ids of the label map.
        category_ids: those ids: class k has id `category_ids[k - 1]`.
        dropped: dict from the places of objects to reasons.

    Raises:
        DataError: there is no such file, a shard is missing, a file is truncated or compressed or no TFRecord file, the
            index is that of other files, or there is no label map.
    """

    def __init__(self, path, label_map=None):
        self.path = as_path(path)
        self._shards = Shards(self.path)
        self.files = self._shards.files
        names = read_label_map(as_path(label_map) if label_map else _label_map(self.files[0].parent))
        self.category_ids, self.class_names = list(names), list(names.values())
        self._labels = {number: label for label, number in enumerate(self.category_ids, 1)}
        self.dropped = {}

    def __len__(self):
        return len(self._shards)

    def _record(self, position):
        """Features of a record, and its place for messages."""
        content, place = self._shards.read(position)
        return features_of(content, place), place

    def labels_at(self, position):
        """Returns the labels of the objects of an image without decoding it: int32 [n]."""
        features, place = self._record(position)
        ids = enumerate(features.get("image/object/class/label", ()))
        kept = [self._labels.get(number) for index, number in ids if _object(place, index) not in self.dropped]
        return np.array([label for label in kept if label], np.int32)

    def read(self, position):
        """Returns one image with its objects."""
        features, place = self._record(position)
        encoded = _only(features, "image/encoded", place)
        image = read_stored(place, self.image_type, encoded).image
        objects = _objects(features, image.shape[:2], place)
        check_mask_memory(len(objects["ids"]), image.shape[:2], place)
        runs = self._usable(objects, image.shape[:2], place)
        rows, (height, width) = list(runs), image.shape[:2]
        name = bytes(_only(features, "image/filename", place, b"")).decode("utf-8", "replace")
        return {
            "image": image,
            "boxes": np.clip(objects["boxes"][rows], 0, [width, height, width, height]),
            "labels": np.array([self._labels[objects["ids"][row]] for row in rows], np.int32),
            "masks": decode(list(runs.values()), image.shape[:2]),
            "crowd": objects["crowd"][rows],
            "image_id": _image_id(features, position, place),
            "source": f"{place} ({name})" if name else place,
        }

    def _usable(self, objects, size, place):
        """Run lengths of the masks of the objects that can be used, by row; the others are noted in `dropped`."""
        runs, unusable = {}, {}
        for row, (number, box, mask) in enumerate(zip(objects["ids"], objects["boxes"], objects["masks"], strict=True)):
            name, fault = _object(place, row), box_fault(box, size)
            pixels = read_ids(name, [size], binary=True, content=mask) > 0
            if number not in self._labels:
                unusable[name] = f"its label {number} is not in the label map"
            elif fault or not pixels.any():
                unusable[name] = f"its box {fault}" if fault else "its mask is empty"
            else:
                runs[row] = run_length.encode(np.asfortranarray(pixels, np.uint8))
        log_dropped(self.path, {name: reason for name, reason in unusable.items() if name not in self.dropped})
        self.dropped.update(unusable)
        return runs


def _object(place, index):
    return f"{place}, object {index}"


def _only(features, name, place, default=None):
    values = features.get(name, ())
    if len(values) != 1 and default is None:
        raise DataError(place, f"has {len(values) or 'no'} {name}")
    return values[0] if len(values) == 1 else default


def _image_id(features, position, place):
    """`image/source_id`, a whole number where it is one; the position where there is none."""
    text = bytes(_only(features, "image/source_id", place, b"")).decode("utf-8", "replace")
    if not text:
        return position
    return int(text) if re.fullmatch(r"0|-?[1-9]\d{0,17}", text) else text


def _objects(features, size, place):
    """Objects of an image: ids, boxes float64 [n, 4] in pixels, crowd bool [n], masks as files.

    Raises:
        DataError: the features have different numbers of objects, or masks are missing.
    """
    height, width = size
    ids = list(features.get("image/object/class/label", ()))
    count = len(ids)
    sides = [features.get(f"image/object/bbox/{side}", ()) for side in SIDES]
    crowd = features.get("image/object/is_crowd", ()) or [0] * count
    masks = features.get("image/object/mask", ())
    for name, values in (*zip(SIDES, sides, strict=True), ("is_crowd", crowd), ("mask", masks)):
        if len(values) != count:
            raise DataError(place, f"has {count} labels and {len(values)} of {name}")
    if masks and not isinstance(masks[0], bytes):
        raise DataError(place, "has masks as numbers; only PNG masks can be read")
    boxes = np.array(sides, np.float64).reshape(4, count).T * [width, height, width, height]
    exact = np.array(features.get(PIXELS, ()), np.float64)
    if exact.size == boxes.size and np.abs(exact.reshape(boxes.shape) - boxes).max(initial=0) < TOLERANCE:
        boxes = exact.reshape(boxes.shape)
    return {"ids": ids, "boxes": boxes, "crowd": np.array(crowd, bool), "masks": masks}


def _label_map(folder):
    found = sorted(folder.glob(LABEL_MAP)) or sorted(folder.glob("*.pbtxt"))
    if len(found) != 1:
        raise DataError(folder, f"has {len(found) or 'no'} label maps (*.pbtxt): give label_map=")
    return found[0]
