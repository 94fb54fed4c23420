"""The Penn-Fudan pedestrian database: street photos with one id mask each (Wang, Shi, Song, Shen, ACCV 2007)."""

import pathlib

import numpy as np
from PIL import Image

from keras_maskrcnn.data.image_file import BROKEN, read_image
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.sample import DataError, Dataset


class PennFudan(Dataset):
    """Reads `PNGImages/ID.png` with `PedMasks/ID_mask.png` (0 is background, k is person k).

    Boxes are computed from the masks, for those of the text files are up to 3 px off.

    Args:
        folder: The folder that holds `PNGImages` and `PedMasks`.
        split: Name of a list in the folder (`train` for `train.txt`), one ID a line; or "all" for every picture.

    Raises:
        DataError: The folder or the list is missing, or the list is empty.
    """

    def __init__(self, folder, split="train"):
        self.folder, self.split = pathlib.Path(folder), split
        self.class_names = ["person"]
        if not (self.folder / "PNGImages").is_dir():
            raise DataError(self.folder, "no such folder" if not self.folder.is_dir() else "has no folder PNGImages")
        self.names = self._names()

    def _names(self):
        if self.split == "all":
            path, names = self.folder / "PNGImages", sorted(p.stem for p in self.folder.glob("PNGImages/*.png"))
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
        """Returns one photo with its pedestrians."""
        name = self.names[position]
        path = self.folder / "PNGImages" / f"{name}.png"
        image = read_image(path, turn=False)
        ids = _read_ids(self.folder / "PedMasks" / f"{name}_mask.png")
        numbers = np.unique(ids)
        masks = ids == numbers[numbers > 0][:, None, None]
        return {
            "image": image,
            "boxes": mask_boxes(masks),
            "labels": np.ones(len(masks), np.int32),
            "masks": masks,
            "crowd": np.zeros(len(masks), bool),
            "image_id": name,
            "source": str(path),
        }


def _read_ids(path):
    try:
        with Image.open(path) as picture:
            return np.array(picture)
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except BROKEN as error:
        raise DataError(path, f"cannot be read as a mask ({error})") from error
