"""Cell nuclei of the Data Science Bowl 2018, stage 1: one folder per image (Caicedo et al., Nature Methods 2019)."""

import pathlib

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.id_masks import read_id_masks, read_ids, split_names
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.sample import Dataset, check_mask_memory


class Nuclei(Dataset):
    """Reads `PART/ID/images/ID.png` with its nuclei, in either of two layouts.

    The original layout has one file per nucleus, `PART/ID/masks/*.png`, not zero where the nucleus is. The compact one
    has a single `PART/ID/mask_ids/ID.png` (0 is background, k is nucleus k; 16 bits, because some images have more
    than 255 nuclei). It is preferred where both exist.

    Args:
        folder: The folder that holds PART and the lists.
        split: Name of a list in the folder (`train` for `train.txt`), one ID per line; or "all" for every image.
        part: Folder of the images.

    Raises:
        DataError: The folder or the list is missing, or the list is empty.
    """

    def __init__(self, folder, split="train", part="stage1_train"):
        self.folder, self.split, self.part = pathlib.Path(folder), split, part
        self.class_names = ["nucleus"]
        self.names = split_names(
            self.folder, split, part, lambda images: [path.parent.name for path in images.glob("*/images")]
        )

    def __len__(self):
        return len(self.names)

    def read(self, position):
        """Returns one image with its nuclei."""
        name = self.names[position]
        folder = self.folder / self.part / name
        path = folder / "images" / f"{name}.png"
        stored = read_stored(path, self.image_type)
        masks = _masks(folder, stored.sizes)
        image = stored.fitted(masks.shape[1:], self.folder)
        labels = np.ones(len(masks), np.int32)
        return {"image": image, "labels": labels, "masks": masks, "image_id": name, "source": str(path)}


def _masks(folder, sizes):
    """Masks in the folder of an image that can have the `sizes`: bool [n, H, W] of one of them, empty ones left out."""
    if (folder / "mask_ids").is_dir():
        return read_id_masks(folder / "mask_ids" / f"{folder.name}.png", sizes)
    if not (folder / "masks").is_dir():
        raise DataError(folder, "has neither a folder mask_ids nor a folder masks")
    paths = sorted((folder / "masks").glob("*.png"))
    check_mask_memory(len(paths), sizes[0], folder / "masks")
    masks = []
    for path in paths:
        masks.append(read_ids(path, sizes, binary=True) > 0)
        sizes = [masks[0].shape]
    return np.array([mask for mask in masks if mask.any()], bool).reshape(-1, *sizes[0])
