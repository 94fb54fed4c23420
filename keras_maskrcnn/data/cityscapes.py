"""Cityscapes: streets of 50 cities, with an id mask and polygons per image (Cordts et al., CVPR 2016)."""

import pathlib

import numpy as np
from PIL import Image, ImageDraw

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.id_masks import masks_of, read_ids
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.json_text import read_json
from keras_maskrcnn.data.outlines import numbers
from keras_maskrcnn.data.run_lengths import MAX_OUTLINE
from keras_maskrcnn.data.sample import Dataset, log_dropped

# The classes with instances that the benchmark scores; source: cityscapesscripts/helpers/labels.py.
THINGS = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
IMAGES = "leftImg8bit"
GROUP = "group"  # ending of the labels of groups in the polygons
NOT_DRAWN = "license plate"  # the id masks do not show it, but the car that it belongs to


class Cityscapes(Dataset):
    """Reads `leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` with `gtFine/SPLIT/CITY/NAME_gtFine_instanceIds.png`.

    An id of 1000 or more is `class * 1000 + n`, one object. A smaller one is a class: an area without objects, or, for
    a class of objects, a group, which becomes a crowd. Where the mask is missing, it is drawn from
    `NAME_gtFine_polygons.json`, later polygons over earlier ones. The labels of the split "test" are not public: its
    files hold no object.

    Args:
        folder: The folder that holds `leftImg8bit` and the annotations.
        split: Name of a folder in it: "train", "val", "test", or "train_extra" of `gtCoarse`.
        annotations: Name of the folder of the annotations, "gtFine" or "gtCoarse".

    Attributes:
        dropped: dict from places in the polygons to the reasons why they are left out, filled while samples are read.

    Raises:
        DataError: The split is missing, or has no annotation.
    """

    def __init__(self, folder, split="train", annotations="gtFine"):
        self.folder, self.split, self.annotations = pathlib.Path(folder), split, annotations
        self.class_names, self.dropped = list(THINGS.values()), {}
        place = self.folder / annotations / split
        if not place.is_dir():
            raise DataError(place, "no such folder")
        found = set()
        for ending in ("instanceIds.png", "polygons.json"):
            ending = f"_{annotations}_{ending}"
            found |= {path.relative_to(place).as_posix().removesuffix(ending) for path in place.glob(f"*/*{ending}")}
        self.names = sorted(found)
        if not self.names:
            raise DataError(place, f"has no CITY/NAME_{annotations}_instanceIds.png and no polygons")

    def __len__(self):
        return len(self.names)

    def read(self, position):
        """Returns one street with its objects and groups."""
        name = self.names[position]
        path = self.folder / IMAGES / self.split / f"{name}_{IMAGES}.png"
        stored = read_stored(path, self.image_type)
        start = self.folder / self.annotations / self.split / f"{name}_{self.annotations}"
        place = pathlib.Path(f"{start}_instanceIds.png")
        if place.is_file():
            ids = read_ids(place, stored.sizes)
        else:
            place = pathlib.Path(f"{start}_polygons.json")
            ids = self._drawn(place, stored.sizes[0])
        of_class = {number: number // 1000 if number >= 1000 else number for number in np.unique(ids).tolist()}
        found = [number for number, thing in of_class.items() if thing in THINGS]
        labels = [list(THINGS).index(of_class[number]) + 1 for number in found]
        return {
            "image": stored.fitted(ids.shape, self.folder),
            "labels": np.array(labels, np.int32),
            "masks": masks_of(ids, found, place),
            "crowd": np.array(found, int) < 1000,
            "image_id": name.split("/")[-1],
            "source": str(path),
        }

    def _drawn(self, path, size):
        """Id mask of the polygons in a file: int32 [H, W]."""
        content = read_json(path)
        objects = content.get("objects") if isinstance(content, dict) else None
        if not isinstance(objects, list) or not all(isinstance(thing, dict) for thing in objects):
            raise DataError(path, "is no file of Cityscapes: it has no list of objects")
        stated = (content.get("imgHeight"), content.get("imgWidth"))
        if stated != tuple(size):
            raise DataError(path, f"is of an image of {stated[1]} x {stated[0]} pixels, not {size[1]} x {size[0]}")
        ids = Image.new("I", size[::-1])
        brush, counts, unusable = ImageDraw.Draw(ids), {}, {}
        for number, thing in enumerate(objects):
            label = str(thing.get("label"))
            if thing.get("deleted") or label == NOT_DRAWN:
                continue
            try:
                corners = _corners(thing.get("polygon"))
            except ValueError as error:
                unusable[f"{path.name}, object {number}"] = str(error)
                continue
            brush.polygon(corners, fill=_id(label, counts))
        log_dropped(path, {place: reason for place, reason in unusable.items() if place not in self.dropped})
        self.dropped.update(unusable)
        return np.array(ids, np.int32)


def _id(label, counts):
    """Id of the next polygon of a label, 0 for all that is not an object; `counts` are the objects of each class."""
    thing = next((number for number, name in THINGS.items() if label in (name, name + GROUP)), 0)
    if not thing or label.endswith(GROUP):
        return thing
    counts[thing] = counts.get(thing, -1) + 1
    return thing * 1000 + counts[thing]


def _corners(polygon):
    """List of (x, y); raises a ValueError if a polygon has no area or no numbers."""
    points = polygon if isinstance(polygon, list) else []
    values = numbers([value for point in points for value in (point if isinstance(point, list) else [None])])
    if len(values) % 2 or len(values) < 6:
        raise ValueError(f"its polygon has {len(values)} coordinates, not pairs of three corners or more")
    if np.abs(values).max() > MAX_OUTLINE:
        raise ValueError(f"its polygon has coordinates beyond {MAX_OUTLINE} pixels")
    return [tuple(pair) for pair in values.reshape(-1, 2).tolist()]
