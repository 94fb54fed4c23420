"""COCO annotation files: polygons, compressed and uncompressed run lengths, crowds, category ids with gaps."""

import functools
import os
import pathlib

import numpy as np
from pycocotools import mask as run_length

from keras_maskrcnn.data import coco_file, coco_keypoints
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.json_text import Elements
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.run_lengths import box_polygons, decode, run_lengths, scored_annotation
from keras_maskrcnn.data.sample import Dataset, check_mask_memory, log_dropped


class Coco(Dataset):
    """Reads a COCO instances file and its folder of images.

    Only an index is in memory; records are read from the file, which must not change, when a sample is read. The index
    of a large file is kept for the next time, see `kept`.

    Images without objects are kept as negatives. An unusable annotation (box without extent or outside the image, mask
    that is empty or cannot be read) is left out, logged and noted in `dropped`. An image with an EXIF orientation is
    turned upright only if it has the size in the file then and not as stored.

    Args:
        annotations: Path of the JSON file; `info` and `licenses` may be missing.
        images: Folder of the image files.
        allow_outside: Whether a `file_name` may be absolute or lead out of that folder.
        by_name: Whether only the last part of a `file_name` is used, whatever folder the file names.
        keypoints: Whether samples have the field `keypoints`, float32 [n, K, 3], see `fields.Points`: x and y in
            continuous pixels, and visibility. Points change sides by the words left and right in their names.
        boxes_only: Whether annotations without a mask, which are unusable otherwise, get their box as mask: for models
            without masks (`MaskRCNN(mask_stage=None)`).

    Attributes:
        images: Sequence of the records of the images.
        class_names: Names of the categories in the order of their ids.
        category_ids: The ids in that order: class k has id `category_ids[k - 1]`.
        dropped: Dict from annotation id to the reason why it is left out.

    Raises:
        DataError: The file or the folder is missing or is not in the COCO format.
        DataError: `keypoints` is set, and no category has some.
    """

    options = coco_file.Options()
    keeps_index = True  # of a large file
    labels_known = True

    def __init__(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike,
        allow_outside: bool = False,
        keypoints: bool = False,
        by_name: bool = False,
        boxes_only: bool = False,
    ):
        self.path, self.folder = pathlib.Path(annotations), pathlib.Path(images)
        self.options = self.options._replace(
            allow_outside=bool(allow_outside),
            keypoints=bool(keypoints),
            by_name=bool(by_name),
            boxes_only=bool(boxes_only),
        )
        self._index = coco_file.load(self.path, self.options, self.keeps_index)
        if not self.folder.is_dir():
            raise DataError(self.folder, "no such folder of images")
        self.images = Elements(self.path, self._index.images, self._index.version, self._image)
        self._annotations = Elements(self.path, self._index.annotations, self._index.version)
        self.category_ids = [category["id"] for category in self._index.categories]
        self.class_names = [str(category["name"]) for category in self._index.categories]
        if keypoints:
            self.fields = (coco_keypoints.points_of(self._index.categories, self.path),)
        self.dropped = dict(self._index.dropped)
        log_dropped(self.path, self.dropped)

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

    def __len__(self):
        return len(self.images)

    def _image(self, record):
        """The record of an image, in which `file_name` leads from the folder of images to its file."""
        name = self.options.file_name(record)
        # Without `..`, which would lead out of the folder behind a link in it, see `paths.inside`.
        return {**record, "file_name": name if self.options.allow_outside else os.path.normpath(name)}

    def _rows(self, position):
        """Positions of the annotations of an image."""
        return slice(*self._index.first[position : position + 2].tolist())

    def labels_at(self, position):
        """Returns the labels of the usable annotations of an image without reading anything: int32 [n]."""
        rows = self._rows(position)
        return self._index.labels[rows][self._index.usable[rows]]

    @functools.cached_property
    def _positions(self):
        return {image_id: position for position, image_id in enumerate(self._index.image_ids)}

    def coco_annotations(self, image_id):
        """Returns the annotations of an image as the file states them, dropped ones included."""
        position = self._positions.get(image_id)
        if position is None:
            return []
        rows, size = self._rows(position), tuple(self._index.sizes[position].tolist())
        annotations, labels = self._annotations[rows], self._index.labels[rows].tolist()
        scored = [scored_annotation(annotation, size) for annotation in annotations]
        points = [coco_keypoints.scored(annotation, self.fields) for annotation in annotations]
        return [{**a, **p, "category_id": label} for a, p, label in zip(scored, points, labels, strict=True) if a]

    def read(self, position):
        """Returns one image with its instances."""
        record = self.images[position]
        path = self.folder / record["file_name"]
        image = read_stored(path, self.image_type).fitted((record["height"], record["width"]), self.folder)
        size = image.shape[:2]
        if size != (record["height"], record["width"]):
            listed = f"{record['width']} x {record['height']}"
            raise DataError(path, f"is {size[1]} x {size[0]} pixels, but {listed} in {self.path.name}")
        annotations, masks = self._masks(self._rows(position), size, path)
        return {
            "image": image,
            "boxes": _boxes(annotations, masks),
            "labels": self.labels_at(position),
            "masks": masks,
            "crowd": np.array([bool(a.get("iscrowd")) for a in annotations], bool),
            "image_id": record["id"],
            "source": str(path),
            **coco_keypoints.values(annotations, self.fields, size),
        }

    def _masks(self, rows, size, path):
        """Returns the annotations with a mask that can be read and is not empty, and the masks: bool [n, H, W]."""
        usable, annotations, kept, runs, unusable = self._index.usable[rows], self._annotations[rows], [], [], {}
        for row in np.flatnonzero(usable):
            annotation = annotations[row]
            try:
                run = run_lengths(annotation.get("segmentation") or box_polygons(annotation["bbox"]), size)
                if not run or not run_length.area(run):
                    raise ValueError("its mask is empty")
            except ValueError as error:
                unusable[annotation["id"]] = str(error)
                usable[row] = False
                continue
            kept.append(annotation)
            runs.append(run)
        log_dropped(path, unusable)
        self.dropped.update(unusable)
        check_mask_memory(len(runs), size, path)
        return kept, decode(runs, size)


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
