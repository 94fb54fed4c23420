"""COCO annotation files: polygons, compressed and uncompressed run lengths, crowds, category ids with gaps."""

import collections
import pathlib
import reprlib

import numpy as np
from pycocotools import mask as run_length

from keras_maskrcnn.data import coco_file, coco_keypoints
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.run_lengths import decode, is_box, run_lengths, scored_annotation
from keras_maskrcnn.data.sample import DataError, Dataset, box_fault, check_mask_memory, log_dropped


class Coco(Dataset):
    """Reads a COCO instances file and its folder of images.

    Images without objects are kept as negatives. An unusable annotation (box without extent or outside the image, mask
    that is empty or cannot be read) is left out, logged and noted in `dropped`. An image with an EXIF orientation is
    turned upright only if it has the size in the file then and not as stored.

    Args:
        annotations: Path of the JSON file; `info` and `licenses` may be missing.
        images: Folder of the image files.
        allow_outside: Whether a `file_name` may be absolute or lead out of that folder.
        keypoints: Whether samples have the field `keypoints`, float32 [n, K, 3], see `fields.Points`: x and y in
            continuous pixels, and visibility. Points change sides by the words left and right in their names.

    Attributes:
        class_names: Names of the categories in the order of their ids.
        category_ids: The ids in that order: class k has id `category_ids[k - 1]`.
        dropped: Dict from annotation id to the reason why it is left out.

    Raises:
        DataError: The file or the folder is missing or is not in the COCO format.
        DataError: `keypoints` is set, and no category has some.
    """

    address = None  # key of an image's web address where it replaces `file_name`, see `coco_file.load`
    labels_known = True

    def __init__(self, annotations, images, allow_outside=False, keypoints=False):
        self.path, self.folder = pathlib.Path(annotations), pathlib.Path(images)
        content = coco_file.load(self.path, allow_outside, self.address)
        if not self.folder.is_dir():
            raise DataError(self.folder, "no such folder of images")
        self.images = content["images"]
        categories = sorted(content["categories"], key=lambda category: category["id"])
        self.category_ids = [category["id"] for category in categories]
        self.class_names = [str(category["name"]) for category in categories]
        if keypoints:
            self.fields = (coco_keypoints.points_of(categories, self.path),)
        self._sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in self.images}
        self._labels = {number: label for label, number in enumerate(self.category_ids, 1)}
        self.dropped = {}
        self._annotations = self._by_image(content["annotations"])

    @classmethod
    def from_folder(cls, root, split):
        """Opens the layout of the COCO downloads: `annotations/instances_SPLIT.json` next to the folder `SPLIT`.

        Args:
            root: The folder that holds both.
            split: For example "train2017".

        Returns:
            A Coco reader.
        """
        root = pathlib.Path(root)
        return cls(root / "annotations" / f"instances_{split}.json", root / split)

    def _by_image(self, annotations):
        groups = collections.defaultdict(list)
        for annotation in annotations:
            for key, known in (("category_id", self._labels), ("image_id", self._sizes)):
                if annotation[key] not in known:
                    number, value = reprlib.repr(annotation["id"]), reprlib.repr(annotation[key])
                    reason = f"annotation {number} has the unknown {key.removesuffix('_id')} {value}"
                    raise DataError(self.path, reason)
            groups[annotation["image_id"]].append(annotation)
            reason = _unusable(annotation, self._sizes[annotation["image_id"]])
            if reason := reason or coco_keypoints.fault(annotation, self.fields):
                self.dropped[annotation["id"]] = reason
        log_dropped(self.path, self.dropped)
        return groups

    def __len__(self):
        return len(self.images)

    def labels_at(self, position):
        """Returns the labels of the annotations of an image without decoding it: int32 [n]."""
        return self._labels_of(self._kept(self.images[position]["id"]))

    def _kept(self, image_id):
        """Returns the annotations of an image that are not dropped."""
        return [a for a in self._annotations.get(image_id, []) if a["id"] not in self.dropped]

    def _labels_of(self, annotations):
        return np.array([self._labels[annotation["category_id"]] for annotation in annotations], np.int32)

    def coco_annotations(self, image_id):
        """Returns the annotations of an image as the file states them, dropped ones included."""
        annotations = self._annotations.get(image_id, [])
        scored = (scored_annotation(annotation, self._sizes[image_id]) for annotation in annotations)
        labels = self._labels_of(annotations).tolist()
        return [{**a, "category_id": label} for a, label in zip(scored, labels, strict=True) if a]

    def read(self, position):
        """Returns one image with its instances."""
        record = self.images[position]
        path = self.folder / record["file_name"]
        image = read_stored(path, self.image_type).fitted((record["height"], record["width"]), self.folder)
        size = image.shape[:2]
        if size != (record["height"], record["width"]):
            listed = f"{record['width']} x {record['height']}"
            raise DataError(path, f"is {size[1]} x {size[0]} pixels, but {listed} in {self.path.name}")
        annotations, masks = self._masks(self._kept(record["id"]), size, path)
        return {
            "image": image,
            "boxes": _boxes(annotations, masks),
            "labels": self._labels_of(annotations),
            "masks": masks,
            "crowd": np.array([bool(a.get("iscrowd")) for a in annotations], bool),
            "image_id": record["id"],
            "source": str(path),
            **coco_keypoints.values(annotations, self.fields, size),
        }

    def _masks(self, annotations, size, path):
        """Returns the annotations with a mask that can be read and is not empty, and the masks: bool [n, H, W]."""
        kept, runs, unusable = [], [], {}
        for annotation in annotations:
            try:
                run = run_lengths(annotation["segmentation"], size)
            except ValueError as error:
                unusable[annotation["id"]] = str(error)
                continue
            if run and run_length.area(run):
                kept.append(annotation)
                runs.append(run)
            else:
                unusable[annotation["id"]] = "its mask is empty"
        log_dropped(path, {number: reason for number, reason in unusable.items() if number not in self.dropped})
        self.dropped.update(unusable)
        check_mask_memory(len(runs), size, path)
        return kept, decode(runs, size)


def _unusable(annotation, size):
    """Returns why an annotation cannot be used, or None."""
    if not annotation.get("segmentation"):
        return "its mask is missing"
    if annotation.get("iscrowd") not in (0, 1, None):
        return f"its iscrowd is {reprlib.repr(annotation['iscrowd'])}, not 0 or 1"
    if "bbox" not in annotation:
        return None
    if not is_box(annotation["bbox"]):
        return "its box is not four numbers"
    x, y, w, h = annotation["bbox"]
    fault = box_fault((x, y, x + w, y + h), size)
    return f"its box {fault}" if fault else None


def _boxes(annotations, masks):
    """Returns the annotated boxes (COCO's AP uses these), clipped to the image; otherwise the box of the mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    height, width = masks.shape[1:]
    for index, annotation in enumerate(annotations):
        if "bbox" in annotation:
            x, y, w, h = annotation["bbox"]
            boxes[index] = np.clip([x, y, x + w, y + h], 0, [width, height, width, height])
        else:
            boxes[index] = mask_boxes(masks[index : index + 1])[0]
    return boxes
