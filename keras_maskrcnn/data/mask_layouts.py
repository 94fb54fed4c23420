"""Folders of data sets whose objects are in mask files; for each function see `formats.FORMATS`."""

import functools

from keras_maskrcnn.data.cityscapes import IMAGES, Cityscapes
from keras_maskrcnn.data.mask_folder import MaskFolder
from keras_maskrcnn.data.nuclei import Nuclei
from keras_maskrcnn.data.open_images import OpenImages, class_ids_of
from keras_maskrcnn.data.paths import folders
from keras_maskrcnn.data.penn_fudan import PennFudan
from keras_maskrcnn.data.voc import LISTS, Voc

SPLITS = ("train", "val", "valid", "validation", "test")
MASK_TABLE = "annotations-object-segmentation.csv"
DESCRIPTIONS = (
    *("class-descriptions-boxable.csv", "oidv7-class-descriptions-boxable.csv"),  # the downloads
    *("class-descriptions.csv", "classes.csv"),  # CVAT, FiftyOne
)
MASK_CLASSES = ("classes-segmentation.txt", "segmentation_classes.csv")


def voc(path):
    """Finds the folder of a year."""
    if not all((path / folder).is_dir() for folder in ("JPEGImages", "SegmentationObject", "SegmentationClass")):
        return "no folders JPEGImages, SegmentationObject, SegmentationClass"
    lists = [name for name in ("train", "val") if (path / LISTS / f"{name}.txt").is_file()]
    return {name: functools.partial(Voc, path, name) for name in lists or ["all"]}


def cityscapes(path):
    """Finds `leftImg8bit` with `gtFine`, or else `gtCoarse`."""
    for annotations in ("gtFine", "gtCoarse"):
        parts = [child.name for child in folders(path / annotations) if (path / IMAGES / child.name).is_dir()]
        if parts:
            return {part: functools.partial(Cityscapes, path, part, annotations) for part in parts}
    return f"no folders {IMAGES}/train and gtFine/train"


def open_images(path):
    """Finds the tables of masks of the downloads, or of CVAT's and FiftyOne's exports."""
    parts = {}
    for table in sorted({*path.glob(f"*-{MASK_TABLE}"), *path.glob(f"annotations/*-{MASK_TABLE}")}):
        name = table.name.removesuffix(f"-{MASK_TABLE}")
        images = (path / name, path / "images" / name, path / "images")
        masks = (path / f"{name}-masks", path / "masks" / name, path / "masks")
        parts[name] = (table, images, masks, [table.parent, path])
    for table in sorted(path.glob("*/labels/segmentations.csv")):
        part = table.parent.parent
        parts[part.name] = (table, (part / "data",), (table.parent / "masks",), [part / "metadata"])
    tables = [table for table, *_ in parts.values()]
    openers, reason = {}, f"no table train-{MASK_TABLE}"
    for name, (table, images, masks, places) in parts.items():
        found = [next((folder for folder in kind if folder.is_dir()), None) for kind in (images, masks)]
        if None in found:
            reason = f"no folder {(images, masks)[found.index(None)][0]} for {table.name}"
            continue
        openers[name] = functools.partial(_open_images, table, *found, places, tables)
    return openers or reason


def _open_images(table, images, masks, places, tables):
    """Opens a part with the classes of all, so that they agree."""
    names, listed = (
        next((file for place in places for name in kind if (file := place / name).is_file()), None)
        for kind in (DESCRIPTIONS, MASK_CLASSES)
    )
    return OpenImages(table, images, masks, names, class_ids_of(tables, listed))


def penn_fudan(path):
    """Finds the photos and masks with lists of names."""
    return _listed(path, PennFudan, "PNGImages", "PedMasks")


def nuclei(path):
    """Finds `stage1_train` with lists of names."""
    return _listed(path, Nuclei, "stage1_train")


def _listed(path, reader, *folders):
    """Splits of a reader with lists of names, `train.txt` and so on; all images without lists."""
    if not all((path / folder).is_dir() for folder in folders):
        return f"no folder {' and '.join(folders)}"
    lists = [name for name in SPLITS if (path / f"{name}.txt").is_file()]
    return {name: functools.partial(reader, path, name) for name in lists or ["all"]}


def mask_folder(path):
    """Finds `images` with `masks`, each with a folder per split or in one, or a folder per image with both."""
    pairs = {child.name: (child, path / "masks" / child.name) for child in folders(path / "images")}
    found = {name: pair for name, pair in pairs.items() if name in SPLITS and pair[1].is_dir()}
    found |= {child.name: pair for child in folders(path) if child.name in SPLITS and (pair := _pair(child))}
    if not found and (pair := _pair(path)):
        found = {"all": pair}
    openers = {name: functools.partial(MaskFolder, *pair) for name, pair in found.items()}
    return openers or "no folders images and masks"


def _pair(folder):
    """Folders of images and masks in a folder; the folder itself if it has one folder per image; or None."""
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        return folder / "images", folder / "masks"
    has_both = any((child / "images").is_dir() and (child / "masks").is_dir() for child in folders(folder))
    return (folder,) if has_both else None
