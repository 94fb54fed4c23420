"""The Penn-Fudan pedestrian database: street photos with one id mask each (Wang, Shi, Song, Shen, ACCV 2007)."""

import os
import pathlib

import numpy as np

from keras_maskrcnn.data.id_masks import read_id_masks, split_names
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.sample import Dataset


class PennFudan(Dataset):
    """Reads `PNGImages/ID.png` with `PedMasks/ID_mask.png` (0 is background, k is person k).

    A photo with an EXIF orientation is turned upright only if its mask has the size of the turned photo and not of the
    stored one. Boxes are computed from the masks because those of the text files are up to 3 pixels off.

    Args:
        folder: The folder that holds `PNGImages` and `PedMasks`.
        split: Name of a list in the folder (`train` for `train.txt`), one ID per line; or "all" for every image.

    Raises:
        DataError: The folder or the list is missing, or the list is empty.
    """

    def __init__(self, folder: str | os.PathLike, split: str = "train"):
        self.folder, self.split = pathlib.Path(folder), split
        self.class_names = ["person"]
        self.names = split_names(
            self.folder, split, "PNGImages", lambda images: [path.stem for path in images.glob("*.png")]
        )

    def __len__(self):
        return len(self.names)

    def read(self, position):
        """Returns one photo with its pedestrians."""
        name = self.names[position]
        path = self.folder / "PNGImages" / f"{name}.png"
        stored = read_stored(path, self.image_type)
        masks = read_id_masks(self.folder / "PedMasks" / f"{name}_mask.png", stored.sizes)
        image = stored.fitted(masks.shape[1:], self.folder)
        labels = np.ones(len(masks), np.int32)
        return {"image": image, "labels": labels, "masks": masks, "image_id": name, "source": str(path)}
