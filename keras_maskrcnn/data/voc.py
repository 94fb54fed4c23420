"""Pascal VOC segmentation: one mask of objects and one of classes per photo (Everingham et al. 2010)."""

import pathlib

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.id_masks import read_id_masks, read_ids, split_names
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.sample import Dataset

CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
LISTS = pathlib.PurePath("ImageSets", "Segmentation")
VOID = 255  # the border of objects, and what is hard to tell


class Voc(Dataset):
    """Reads `JPEGImages/ID.jpg` with `SegmentationObject/ID.png` and `SegmentationClass/ID.png`.

    Both masks have palettes: their indices are the numbers of objects and of classes, 0 is background, 255 is void. An
    object has the class of most of its pixels. Masks in colours without a palette, as some copies have, are refused.

    Args:
        folder: The folder of a year, such as `VOCdevkit/VOC2012`.
        split: Name of a list in `ImageSets/Segmentation`; or "all" for every mask.
        class_names: list of names of the classes 1, 2, …

    Raises:
        DataError: The folder or the list is missing, or the list is empty.
    """

    def __init__(self, folder, split="train", class_names=CLASSES):
        self.folder, self.split, self.class_names = pathlib.Path(folder), split, list(class_names)
        part, place = "SegmentationObject", self.folder if split == "all" else self.folder / LISTS
        if split != "all" and not (self.folder / part).is_dir():
            raise DataError(self.folder, f"has no folder {part}" if self.folder.is_dir() else "no such folder")
        self.names = split_names(
            place, split, part if split == "all" else ".", lambda masks: [path.stem for path in masks.glob("*.png")]
        )

    def __len__(self):
        return len(self.names)

    def read(self, position):
        """Returns one photo with its objects."""
        name = self.names[position]
        path = self.folder / "JPEGImages" / f"{name}.jpg"
        stored = read_stored(path, self.image_type)
        place = self.folder / "SegmentationObject" / f"{name}.png"
        masks = read_id_masks(place, stored.sizes, void=VOID)
        size = masks.shape[1:]
        classes = read_ids(self.folder / "SegmentationClass" / f"{name}.png", [size])
        labels = np.array([self._label(classes[mask], place, i) for i, mask in enumerate(masks, 1)], np.int32)
        image = stored.fitted(size, self.folder)
        return {"image": image, "labels": labels, "masks": masks, "image_id": name, "source": str(path)}

    def _label(self, classes, place, number):
        counts = np.bincount(classes[(classes > 0) & (classes != VOID)], minlength=1)
        label = int(counts.argmax())
        if not counts.sum() or label > self.num_classes:
            shown = f"the class {label}, of {self.num_classes}" if counts.sum() else "no class"
            raise DataError(place, f"object {number} has {shown} in SegmentationClass")
        return label
