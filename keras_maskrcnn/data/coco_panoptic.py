"""COCO panoptic files: a JSON file, and a PNG file per image whose colours are the ids of segments."""

import pathlib

import numpy as np

from keras_maskrcnn.data.errors import DataError, shown
from keras_maskrcnn.data.fields import LabelMap
from keras_maskrcnn.data.id_masks import masks_of
from keras_maskrcnn.data.image_file import opened, read_stored
from keras_maskrcnn.data.json_text import read_json
from keras_maskrcnn.data.paths import inside
from keras_maskrcnn.data.sample import Dataset

SEGMENTS = "segments_info"  # key that no other file of COCO has
VOID = 255  # pixels without a segment


class CocoPanoptic(Dataset):
    """Reads the panoptic annotations of COCO: objects ("things") as instances, regions ("stuff") as a map.

    The id of a pixel's segment is R + 256 G + 256² B; 0 is no segment. Samples have the field `semantic`, uint8
    [H, W], see `fields.LabelMap`: 0 on things, then the number of the stuff category, and 255 where there is no
    segment. Segments that the JSON file does not list are no segments.

    Args:
        annotations: Path of the JSON file.
        images: Folder of the image files.
        segments: Folder of the PNG files; None for the one beside the JSON file with its name without the ending.
        allow_outside: Whether a `file_name` may be absolute or lead out of its folder.

    Attributes:
        class_names: Names of the thing categories in the order of their ids; `fields` has those of the stuff.
        category_ids: Ids of the things, then of the stuff, in the order of their names.

    Raises:
        DataError: A file or folder is missing or not in this format, or there are no things.
    """

    def __init__(self, annotations, images, segments=None, allow_outside=False):
        self.allow_outside = bool(allow_outside)
        self.path, self.folder = pathlib.Path(annotations), pathlib.Path(images)
        self.segments = pathlib.Path(segments) if segments else self.path.with_suffix("")
        for folder in (self.folder, self.segments):
            if not folder.is_dir():
                raise DataError(folder, "no such folder")
        content = read_json(self.path)
        try:
            categories = sorted(content["categories"], key=lambda category: category["id"])
            things, stuff = ([c for c in categories if bool(c["isthing"]) == wanted] for wanted in (True, False))
            self.images = {image["id"]: str(image["file_name"]) for image in content["images"]}
            self.annotations = list(content["annotations"])
            for annotation in self.annotations:
                _ = self.images[annotation["image_id"]], annotation["file_name"], annotation[SEGMENTS]
            self.category_ids = [category["id"] for category in (*things, *stuff)]
            self.class_names = [str(category["name"]) for category in things]
            names = [str(category["name"]) for category in stuff]
            self._labels = {c["id"]: (i, kind is things) for kind in (things, stuff) for i, c in enumerate(kind, 1)}
        except (KeyError, TypeError) as error:
            raise DataError(self.path, f"is no COCO panoptic file ({type(error).__name__}: {error})") from error
        if not things or len(stuff) >= VOID:
            raise DataError(self.path, f"has {len(things)} categories of things and {len(stuff)} of stuff")
        self.fields = (LabelMap("semantic", class_names=("things", *names)),)

    def __len__(self):
        return len(self.annotations)

    def read(self, position):
        """Returns one image with its things and its map of stuff."""
        annotation = self.annotations[position]
        path = inside(self.folder, self.images[annotation["image_id"]], self.path, self.allow_outside)
        place = inside(self.segments, annotation["file_name"], self.path, self.allow_outside)
        stored = read_stored(path, self.image_type)
        ids = _ids(place, stored.sizes)
        semantic, found = np.full(ids.shape, VOID, np.uint8), []
        present = set(np.unique(ids).tolist())
        for number, category, is_crowd in _segments(annotation[SEGMENTS], self._labels, place):
            label, is_thing = self._labels[category]
            if number in present:
                semantic[ids == number] = 0 if is_thing else label
                found += [(number, label, is_crowd)] if is_thing else []
        return {
            "image": stored.fitted(ids.shape, self.folder),
            "labels": np.array([label for _, label, _ in found], np.int32),
            "masks": masks_of(ids, [number for number, _, _ in found], place),
            "crowd": np.array([crowd for *_, crowd in found], bool),
            "semantic": semantic,
            "image_id": annotation["image_id"],
            "source": str(path),
        }


def _segments(listed, known, place):
    """(id, category, whether it is a crowd) of each segment in a list."""
    try:
        found = [(one.get("id"), one.get("category_id"), bool(one.get("iscrowd"))) for one in listed]
        for number, category, _ in found:
            if category not in known or not isinstance(number, int):
                reason = f"segment {shown(number)} has the category {shown(category)}, which is not listed"
                raise DataError(place, reason)
    except (AttributeError, TypeError) as error:  # not a list of dicts, or a list as category
        raise DataError(place, f"its segments_info is damaged ({error})") from error
    return found


def _ids(path, sizes):
    """Ids of the segments of the pixels: int32 [H, W]."""
    with opened(path, "a map of segments") as image:
        if image.mode not in ("RGB", "RGBA"):
            raise ValueError(f"it has the mode {image.mode}, not R, G, B")
        pixels = np.asarray(image.convert("RGB"), np.int32)
    if pixels.shape[:2] not in sizes:
        raise DataError(path, f"has {list(pixels.shape[:2])} pixels, its image {list(sizes[0])}")
    return pixels @ np.array([1, 256, 256**2], np.int32)


def colours(ids):
    """Ids int [H, W], up to 256³ - 1, as the colours of their PNG file, uint8 [H, W, 3]."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)
