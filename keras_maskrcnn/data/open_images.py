"""Open Images, version 5 and later: a CSV table with one mask file per object (Benenson, Popov, Ferrari, CVPR 2019)."""

import csv
import os
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import opened, read_stored
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.paths import folders, inside, regular
from keras_maskrcnn.data.sample import Dataset, box_fault, check_mask_memory, log_dropped, logger

COLUMNS = ("MaskPath", "ImageID", "LabelName")
BOX = ("BoxXMin", "BoxYMin", "BoxXMax", "BoxYMax")
ASPECT = 0.02  # largest relative difference between the scales of width and height of a mask and its image


class Row(NamedTuple):
    """An object: name of its mask file, id of its class, and its box in shares of the image's sides, or None."""

    mask: str
    label: str
    box: tuple | None


class Table(NamedTuple):
    """A table of masks.

    Attributes:
        rows: dict from the ids of the images that are in the folder to lists of `Row`.
        missing: ids of the other images, a set.
        labels: ids of all classes, a set.
        dropped: dict from lines that cannot be used to reasons.
    """

    rows: dict
    missing: set
    labels: set
    dropped: dict


class OpenImages(Dataset):
    """Reads `IMAGEID.jpg` with the masks of `SPLIT-annotations-object-segmentation.csv`.

    Most masks have another size than the images of the download, and are scaled to it. Boxes are those of the table;
    without its box columns they are computed from the masks. Images of the table that are not in the folder are
    counted in the log; images without a row are left out, since nothing says what they show.

    Args:
        annotations: Path of the CSV file.
        images: Folder of the images.
        masks: Folder of the mask files, or of folders of them by the first character of their names.
        descriptions: Path of a table from ids to names of classes, such as `class-descriptions-boxable.csv`; None takes
            the ids as names.
        class_ids: list of the ids of the classes 1, 2, …, such as "/m/0cmf2"; None takes those in the table, sorted.

    Attributes:
        dropped: dict from lines of the table and mask files to the reasons why they are left out.

    Raises:
        DataError: A file or folder is missing or of another kind, or the folder has no image of the table.
    """

    def __init__(self, annotations, images, masks, descriptions=None, class_ids=None):
        self.path, self.folder, self.masks = (pathlib.Path(place) for place in (annotations, images, masks))
        for folder in (self.folder, self.masks):
            if not folder.is_dir():
                raise DataError(folder, "no such folder")
        table = read_table(self.path, {path.stem for path in self.folder.glob("*.jpg")})
        self._rows, self.names, self.dropped = table.rows, sorted(table.rows), table.dropped
        log_dropped(self.path, self.dropped)
        if not self.names:
            raise DataError(self.path, f"names {len(table.missing)} images, none of which is in {self.folder}")
        if table.missing:
            count = f"{len(table.missing)} of {len(table.missing) + len(self.names)} images"
            logger.warning("%s: %s are not in %s", self.path, count, self.folder)
        self.class_ids = sorted(table.labels) if class_ids is None else list(class_ids)
        if unknown := sorted(table.labels.difference(self.class_ids)):
            raise DataError(self.path, f"has the class {unknown[0]!r}, which is not one of {len(self.class_ids)}")
        names = {} if descriptions is None else read_names(pathlib.Path(descriptions))
        self.class_names = [names.get(number, number) for number in self.class_ids]
        self._labels = {number: label for label, number in enumerate(self.class_ids, 1)}

    def __len__(self):
        return len(self.names)

    def _kept(self, position):
        return [row for row in self._rows[self.names[position]] if row.mask not in self.dropped]

    def labels_at(self, position):
        """Returns the labels of the objects of an image without decoding it: int32 [n]."""
        return np.array([self._labels[row.label] for row in self._kept(position)], np.int32)

    def read(self, position):
        """Returns one image with its objects."""
        path, rows, unusable = self.folder / f"{self.names[position]}.jpg", self._kept(position), {}
        image = read_stored(path, self.image_type).turned()
        size = image.shape[:2]
        check_mask_memory(len(rows), size, path)
        labels, boxes, masks = [], np.zeros((len(rows), 4), np.float32), np.zeros((len(rows), *size), bool)
        for row in rows:
            index = len(labels)
            try:
                masks[index] = _scaled(self._mask(row.mask), size)
                boxes[index] = _box(row.box, masks[index])
            except ValueError as error:
                if isinstance(error, DataError):
                    raise
                unusable[row.mask] = str(error)
                continue
            labels.append(self._labels[row.label])
        log_dropped(self.path, unusable)
        self.dropped.update(unusable)
        arrays = {"boxes": boxes[: len(labels)], "labels": np.array(labels, np.int32), "masks": masks[: len(labels)]}
        return {"image": image, **arrays, "image_id": self.names[position], "source": str(path)}

    def _mask(self, name):
        """Reads a mask file: a PIL image, grey."""
        path = inside(self.masks, name, self.path)
        if not os.path.isfile(path):  # the download has one archive per first character
            ends = path.name[0].lower(), path.name[0].upper()
            places = (folder / path.name for folder in folders(self.masks) if folder.name.endswith(ends))
            path = next(filter(os.path.isfile, places), path)
        with opened(path, "a mask") as mask:
            return mask.convert("L")


def read_names(path):
    """Returns the names of classes in a table of class descriptions: dict from ids."""
    return {row[0]: row[1] for row in _table(path) if len(row) == 2 and row[0] != "LabelName"}


def class_ids_of(tables, listed=None):
    """Returns the ids of the classes in a file with one per line, or else in all tables of masks, sorted."""
    if listed is not None:
        return [row[0] for row in _table(listed) if row and row[0] != "LabelName"]
    return sorted(set().union(*(read_table(table, ()).labels for table in tables)))


def read_table(path, images):
    """Reads a table of masks: a `Table`.

    Args:
        path: Path of the CSV file.
        images: ids of the images in the folder.

    Raises:
        DataError: The file cannot be read, or is no table of masks.
    """
    lines, found = _table(path), Table({}, set(), set(), {})
    header = next(lines, [])
    if not set(COLUMNS) <= set(header):
        raise DataError(path, f"is no table of masks: it has no columns {', '.join(COLUMNS)}")
    places = [header.index(name) for name in COLUMNS]
    box_places = [header.index(name) for name in BOX] if set(BOX) <= set(header) else []
    for line, values in enumerate(lines, 2):
        try:
            if len(values) != len(header):
                raise ValueError(f"it has {len(values)} columns, not {len(header)}")
            mask, image, label = (values[place] for place in places)
            if not (mask and image and label):
                raise ValueError(f"it has no {', '.join(COLUMNS)}")
            box = tuple(float(values[place]) for place in box_places if values[place])
        except ValueError as error:
            found.dropped[f"line {line}"] = str(error)
            continue
        found.labels.add(label)
        if image in images:
            found.rows.setdefault(image, []).append(Row(mask, label, box if len(box) == len(BOX) else None))
        else:
            found.missing.add(image)
    return found


def _table(path):
    """Rows of a CSV file."""
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file)
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"cannot be read as a table ({error})") from error


def _scaled(mask, size):
    """Mask of a PIL image in the size of its photo: bool [H, W]; a ValueError if it is empty or has other proportions.

    A pixel of the result belongs to the object if the object covers half of it or more.
    """
    across, down = mask.width / size[1], mask.height / size[0]
    if abs(across - down) > ASPECT * max(across, down):
        raise ValueError(
            f"its mask of {mask.width} x {mask.height} pixels does not fit its image of {size[1]} x {size[0]}"
        )
    values = np.asarray(mask.resize(size[::-1], Image.Resampling.BOX)) > 127
    if not values.any():
        raise ValueError("its mask is empty")
    return values


def _box(shares, mask):
    """Box in pixels, clipped to the image; a ValueError if it has no extent."""
    if shares is None:
        return mask_boxes(mask[None])[0]
    height, width = mask.shape
    box = np.array(shares) * (width, height, width, height)
    if fault := box_fault(box, mask.shape):
        raise ValueError(f"its box {fault}")
    return np.clip(box, 0, (width, height, width, height))
