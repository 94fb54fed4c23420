"""Cell nuclei of the Data Science Bowl 2018, stage 1: one folder a picture (Caicedo et al., Nature Methods 2019)."""

import pathlib

import numpy as np
from PIL import Image

from keras_maskrcnn.data.image_file import BROKEN, read_image
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.sample import DataError, Dataset


class Nuclei(Dataset):
    """Reads `PART/ID/images/ID.png` with its nuclei, in either of two layouts.

    The original layout has one file a nucleus, `PART/ID/masks/*.png`, not zero where the nucleus is. The compact one
    has a single `PART/ID/mask_ids/ID.png` (0 is background, k is nucleus k; 16 bits, for there are pictures with more
    than 255), and is preferred where both are there.

    Args:
        folder: The folder that holds PART and the lists.
        split: Name of a list in the folder (`train` for `train.txt`), one ID a line; or "all" for every picture.
        part: Folder of the pictures.

    Raises:
        DataError: The folder or the list is missing, or the list is empty.
    """

    def __init__(self, folder, split="train", part="stage1_train"):
        self.folder, self.split, self.part = pathlib.Path(folder), split, part
        self.class_names = ["nucleus"]
        self.pictures = self.folder / part
        if not self.pictures.is_dir():
            raise DataError(self.folder, f"has no folder {part}" if self.folder.is_dir() else "no such folder")
        self.names = self._names()

    def _names(self):
        if self.split == "all":
            path, names = self.pictures, sorted(p.name for p in self.pictures.iterdir() if (p / "images").is_dir())
        else:
            path = self.folder / f"{self.split}.txt"
            if not path.is_file():
                raise DataError(path, "no such list of images (one name a line; split='all' takes every image)")
            names = path.read_text(encoding="utf-8").split()
        if not names:
            raise DataError(path, "names no image")
        return names

    def __len__(self):
        return len(self.names)

    def read(self, position):
        """Returns one picture with its nuclei."""
        name = self.names[position]
        path = self.pictures / name / "images" / f"{name}.png"
        image = read_image(path, turn=False)
        masks = self._masks(name, image.shape[:2])
        return {
            "image": image,
            "boxes": mask_boxes(masks),
            "labels": np.ones(len(masks), np.int32),
            "masks": masks,
            "crowd": np.zeros(len(masks), bool),
            "image_id": name,
            "source": str(path),
        }

    def _masks(self, name, size):
        """Masks of one picture of `size` (H, W): bool [n, H, W], empty ones left out."""
        compact, folder = (self.pictures / name / layout for layout in ("mask_ids", "masks"))
        if compact.is_dir():
            ids = _read(compact / f"{name}.png", size)
            numbers = np.unique(ids)
            return ids == numbers[numbers > 0][:, None, None]
        if not folder.is_dir():
            raise DataError(self.pictures / name, "has neither a folder mask_ids nor a folder masks")
        masks = [_read(path, size) > 0 for path in sorted(folder.glob("*.png"))]
        return np.array([mask for mask in masks if mask.any()], bool).reshape(-1, *size)


def _read(path, size):
    """Numbers in a grey mask file: int [H, W]; colours, where a tool wrote them, become grey."""
    try:
        with Image.open(path) as picture:
            values = np.array(picture if len(picture.getbands()) == 1 else picture.convert("L"))
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except BROKEN as error:
        raise DataError(path, f"cannot be read as a mask ({error})") from error
    if values.shape != size:
        raise DataError(path, f"the mask has shape {list(values.shape)}, its image {list(size)}")
    return values
