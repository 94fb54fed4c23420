"""Folders of images and masks without a text file: one id mask per image, or one file per object."""

import pathlib
from typing import NamedTuple

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.id_masks import masks_of, read_ids
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.outlines import IMAGE_ENDINGS
from keras_maskrcnn.data.paths import folders
from keras_maskrcnn.data.sample import Dataset, check_mask_memory, log_dropped, logger

MASK_ENDINGS = tuple(ending for ending in IMAGE_ENDINGS if ending not in (".jpg", ".jpeg"))  # JPEG changes ids
OBJECT = "object"  # class of masks that are in no folder of a class
FOREGROUND = [0, 255]


class MaskFile(NamedTuple):
    """A mask file: its Path, the name of its class, and whether it holds one id per object (or a single object)."""

    path: pathlib.Path
    name: str
    has_ids: bool


class MaskFolder(Dataset):
    """Reads `images/NAME.jpg` with its masks, which are PNG or other files without loss.

    - `masks/NAME.png` holds ids: 0 is background, k is object k (8 or 16 bits, or a palette).
    - `masks/NAME/*.png` are one file per object, not zero where the object is.

    Objects of several classes are in one folder per class: `masks/CLASS/NAME.png`, `masks/CLASS/NAME/*.png` or
    `masks/NAME/CLASS/*.png`. Images without masks and masks without an image are counted in the log and left out;
    an image without objects has an id mask of zeros or an empty folder.

    Args:
        images: Folder of the images; without `masks`, the folder of one folder per image, with `NAME/images/*` and
            `NAME/masks/*`, as in the Data Science Bowl 2018.
        masks: Folder of the masks.
        class_names: list of names of the classes; None takes those of the folders, sorted, or "object".
        void: id of pixels that belong to no object, such as 255 for borders; None for none.

    Attributes:
        dropped: dict from mask files to the reasons why they are left out, filled while samples are read.
        foreground: Path of the first mask file with the id 255 only, likely foreground; None before one is read.

    Raises:
        DataError: A folder is missing, no image has a mask, or there is a folder of another class.
    """

    def __init__(self, images, masks=None, class_names=None, void=None):
        self.folder, self.void, self.dropped = pathlib.Path(images), void, {}
        self.foreground = None
        paths, files = _one_folder_each(self.folder) if masks is None else _paired(self.folder, pathlib.Path(masks))
        self.names, self._paths, self._files = sorted(set(paths) & set(files)), paths, files
        for kind, ones, others in (("images have no masks", paths, files), ("masks have no image", files, paths)):
            if lone := sorted(set(ones).difference(others)):
                logger.warning("%s: %d %s (%s)", self.folder if masks is None else masks, len(lone), kind, lone[0])
        if not self.names:
            raise DataError(self.folder, "has no image with a mask of the same name")
        found = {file.name for name in self.names for file in files[name]}
        self.class_names = sorted(found) or [OBJECT] if class_names is None else list(class_names)
        if unknown := sorted(found.difference(self.class_names)):
            known = ", ".join(self.class_names)
            raise DataError(masks or images, f"has masks of the class {unknown[0]!r}, which is not one of {known}")

    def __len__(self):
        return len(self.names)

    def read(self, position):
        """Returns one image with its objects."""
        name = self.names[position]
        path = self._paths[name]
        stored = read_stored(path, self.image_type)
        sizes, labels, parts = stored.sizes, [], []
        for file in self._files[name]:
            part = self._masks(file, sizes)
            sizes = [part.shape[1:]]
            parts.append(part)
            labels += [self.class_names.index(file.name) + 1] * len(part)
            check_mask_memory(len(labels), sizes[0], file.path)
        masks = np.concatenate([np.zeros((0, *sizes[0]), bool), *parts])
        image = stored.fitted(sizes[0], self.folder)
        labels = np.array(labels, np.int32)
        return {"image": image, "labels": labels, "masks": masks, "image_id": name, "source": str(path)}

    def _masks(self, file, sizes):
        """Masks in a file, of one of the sizes: bool [n, H, W]."""
        values = read_ids(file.path, sizes, binary=not file.has_ids)
        if file.has_ids:
            numbers = np.unique(values)
            if numbers.tolist() == FOREGROUND and self.void is None and not self.foreground:
                self.foreground = file.path
                logger.warning("%s has the id 255 only: is it foreground, not one id per object?", file.path)
            return masks_of(values, numbers[(numbers > 0) & (numbers != self.void)], file.path)
        if not values.any() and str(file.path) not in self.dropped:
            self.dropped[str(file.path)] = "its mask is empty"
            log_dropped(self.folder, {str(file.path): "its mask is empty"})
        return (values > 0)[None] if values.any() else np.zeros((0, *values.shape), bool)


def _paired(images, masks):
    """Images and lists of their mask files in two folders: dicts by name."""
    paths = {}
    for path in _files_in(images, IMAGE_ENDINGS):
        if path.stem in paths:
            raise DataError(images, f"has two images of the name {path.stem}: {paths[path.stem].name}, {path.name}")
        paths[path.stem] = path
    classes = [(child.name, child) for child in folders(masks) if child.name not in paths]
    files = {}
    for name, place in [(OBJECT, masks), *classes]:
        for path in _files_in(place, MASK_ENDINGS):
            files.setdefault(path.stem, []).append(MaskFile(path, name, True))
        for child in folders(place):
            if child.name in paths:
                files.setdefault(child.name, []).extend(_one_file_each(child, name))
    return paths, files


def _one_folder_each(root):
    """As `_paired`, for one folder per image."""
    paths, files = {}, {}
    for folder in folders(root):
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            found = _files_in(folder / "images", IMAGE_ENDINGS)
            if len(found) > 1:
                raise DataError(folder / "images", f"has {len(found)} images, not one")
            if found:
                paths[folder.name] = found[0]
            files[folder.name] = _one_file_each(folder / "masks", OBJECT)
    return paths, files


def _one_file_each(folder, name):
    """Mask files in the folder of an image, and in its folders of classes."""
    found = [MaskFile(path, name, False) for path in _files_in(folder, MASK_ENDINGS)]
    return found + [MaskFile(path, of.name, False) for of in folders(folder) for path in _files_in(of, MASK_ENDINGS)]


def _files_in(folder, endings):
    if not folder.is_dir():
        raise DataError(folder, "no such folder")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings)
