"""The index of a COCO file: where each record is, and what readers need of all records at once.

All records that a reader depends on are checked when the index is made; a fault is a DataError of one line.
"""

import json
from typing import NamedTuple

import numpy as np

from keras_maskrcnn.data import coco_keypoints, kept
from keras_maskrcnn.data.coco_annotations import Annotations
from keras_maskrcnn.data.coco_names import is_background
from keras_maskrcnn.data.errors import DataError, shown
from keras_maskrcnn.data.json_text import Scanner
from keras_maskrcnn.data.paths import OUTSIDE, REMEDY, last_part, leads_out, regular

KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id"),
}
MAX_SIDE = 2**31  # pixels of an image's width and height


class Options(NamedTuple):
    """What changes the index of a file.

    Attributes:
        allow_outside: Whether a `file_name` may be absolute or lead out of the folder of images.
        keypoints: Whether annotations with faulty keypoints are unusable.
        address: Key of the web address of an image, such as "coco_url", whose last two parts replace its `file_name`;
            None reads `file_name`.
        lists: Keys of lists of category ids that the record of each image must have.
        by_name: Whether only the last part of a `file_name` is used.
        boxes_only: Whether annotations without a mask are usable.
    """

    allow_outside: bool = False
    keypoints: bool = False
    address: str | None = None
    lists: tuple = ()
    by_name: bool = False
    boxes_only: bool = False

    @property
    def kind(self):
        """Name of what is kept with these options."""
        return f"COCO without background {tuple(self)}"

    def keys(self, kind):
        """Keys that each record of a kind must have."""
        return [self.address if self.address and key == "file_name" else key for key in KEYS[kind]]

    def file_name(self, image):
        """Path of an image's file in the folder of images, as its record states it."""
        if self.address:
            return "/".join(str(image[self.address]).split("/")[-2:])
        name = image["file_name"]
        return last_part(name) if self.by_name and isinstance(name, str) else name


class Index(NamedTuple):
    """What is known of a COCO file without its records; annotations are ordered by image, then as in the file.

    Attributes:
        categories: list of dicts with `id`, `name` and, where stated, `keypoints`, in the order of their ids; class k
            is entry k - 1.
        image_ids: list of int, float or str.
        images: int64 [n, 2], start and length of the records of the images, in bytes of the file.
        sizes: int64 [n, 2], height and width.
        first: int64 [n + 1]; the annotations of image i are first[i] to first[i + 1] - 1.
        annotations: int64 [m, 2], start and length of their records.
        labels: int32 [m], the class of each annotation.
        usable: bool [m], False for those in `dropped`.
        dropped: dict from the ids of unusable annotations to reasons.
        version: `kept.state` of the file.
    """

    categories: list
    image_ids: list
    images: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    annotations: np.ndarray
    labels: np.ndarray
    usable: np.ndarray
    dropped: dict
    version: tuple


def kept_index(path, options):
    """Returns the `Index` of a COCO file if it is kept, else None without reading the file."""
    return load(path, options) if kept.is_kept(path, options.kind) else None


def load(path, options, keep=True):
    """Returns the `Index` of a COCO file, which may have no `annotations`.

    Args:
        path: Path of the JSON file. The index of a large one is kept, see `kept`.
        options: `Options`.
        keep: Whether the index may be kept.

    Raises:
        DataError: The file cannot be read, is not in the COCO format, or has two records with the same id.
    """
    regular(path)
    try:
        version = kept.state(path)
        arrays = kept.arrays_of(path, options.kind, lambda: _made(path, options)) if keep else _made(path, options)
    except FileNotFoundError:
        raise DataError(path, "no such annotation file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    texts = json.loads(arrays["texts"].tobytes())
    dropped = dict(texts.pop("dropped"))
    return Index(**texts, dropped=dropped, version=version, **{k: v for k, v in arrays.items() if k != "texts"})


def _made(path, options):
    """The arrays of a file's index; texts and ids are one of them, as JSON."""
    images, categories, annotations = _scanned(path, options)
    known = {category["id"] for category, *_ in categories}
    for index, (image, *_) in enumerate(images):
        _check_image(path, f"images[{index}]", image, options, known)
    for index, (category, *_) in enumerate(categories):
        if not isinstance(category["name"], str | int | float):
            raise DataError(path, f"categories[{index}] has the name {shown(category['name'])}, not a text")
    keys = (*KEYS["categories"], coco_keypoints.NAME)
    categories = sorted(({key: record[key] for key in keys if key in record} for record, *_ in categories), key=_id)
    categories = _without_background(categories, annotations.category_ids)
    _check_ids(path, "annotations", annotations.ids)
    sizes = np.array([(int(image["height"]), int(image["width"])) for image, *_ in images], np.int64)
    image_ids = [image["id"] for image, *_ in images]
    rows, dropped = annotations.arrays(path, image_ids, sizes, categories)
    texts = json.dumps({"categories": categories, "image_ids": image_ids, "dropped": list(dropped.items())})
    return {
        "texts": np.frombuffer(texts.encode(), np.uint8),
        "images": np.array([(start, end - start) for _, start, end in images], np.int64),
        "sizes": sizes,
        **rows,
    }


def _without_background(categories, used):
    """The categories without one of background that no annotation has, which labelme2coco and others write."""
    used = set(used)
    kept = [one for one in categories if one["id"] in used or not is_background(str(one["name"]))]
    return kept or categories


def _id(record):
    return record["id"]


def _scanned(path, options):
    """Images and categories, as lists of (record, start, end), and `Annotations`."""
    text = path.read_bytes()
    found = {"images": [], "categories": [], "annotations": Annotations(options.keypoints, options.boxes_only)}
    try:
        if json.detect_encoding(text) not in ("utf-8", "utf-8-sig"):
            raise DataError(path, "is not UTF-8 text")
        if text.lstrip()[:1] == b"[":
            raise DataError(path, "is no COCO file: it lists no images")
        for key, value in Scanner(text).members(KEYS):
            if key in KEYS and not hasattr(value, "__next__"):
                raise DataError(path, f"is no COCO file: it lists no {key}")
            if key == "annotations":
                found[key] = Annotations(options.keypoints, options.boxes_only)
                for index, (record, start, end) in enumerate(value):
                    _check_record(path, key, index, record, options)
                    found[key].add(record, start, end)
            elif key in KEYS:
                found[key] = list(value)
                _check_records(path, key, [record for record, *_ in found[key]], options)
    except RecursionError:
        raise DataError(path, "is no COCO file: its lists are nested too deeply") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(path, _invalid(text, error)) from error
    for key in ("images", "categories"):
        if not found[key]:
            raise DataError(path, f"is no COCO file: it lists no {key}")
    return found.values()


def _invalid(text, error):
    """Why a text is not JSON, with line and column where Python's own reader finds the same."""
    if not text:
        return "the annotation file is empty"
    try:
        json.loads(text)
    except (ValueError, RecursionError) as found:
        error = found
    return f"is not valid JSON ({error})"


def _check_records(path, kind, records, options):
    for index, record in enumerate(records):
        _check_record(path, kind, index, record, options)
    _check_ids(path, kind, [record["id"] for record in records])


def _check_record(path, kind, index, record, options):
    """Checks that a record has what readers need, and that all ids can be keys."""
    keys = options.keys(kind)
    if not isinstance(record, dict) or not all(key in record for key in keys):
        raise DataError(path, f"is no COCO file: {kind}[{index}] lacks one of {', '.join(sorted(keys))}")
    for key in (key for key in keys if key.endswith("id")):
        if type(record[key]) not in (int, str, float) or record[key] != record[key]:
            raise DataError(path, f"{kind}[{index}] has the {key} {shown(record[key])}, not a number or a text")


def _check_ids(path, kind, numbers):
    """Checks that the ids of the records are different and can be sorted."""
    if len({type(number) is str for number in numbers}) > 1:
        raise DataError(path, f"the ids of {kind} are numbers and texts")
    if len(set(numbers)) < len(numbers):
        places = {}
        for index, number in enumerate(numbers):
            if number in places:
                both = f"{kind}[{places[number]}] and {kind}[{index}]"
                raise DataError(path, f"{both} have the id {shown(number)}")
            places[number] = index


def _check_image(path, place, image, options, category_ids):
    for key in ("height", "width"):
        if not _is_side(image[key]):
            raise DataError(path, f"{place} has the {key} {shown(image[key])}, not a number of pixels")
    name = options.file_name(image)
    if not isinstance(name, str) or not name:
        raise DataError(path, f"{place} has the file_name {shown(name)}, not a text")
    if not options.allow_outside and leads_out(name):
        raise DataError(path, f"{place} has the file_name {shown(name)}, {OUTSIDE}{'' if options.address else REMEDY}")
    for key in options.lists:
        if not _are_known(image.get(key), category_ids):
            raise DataError(path, f"{place} has no {key}, or one with unknown categories")


def _is_side(value):
    return type(value) in (int, float) and 1 <= value <= MAX_SIDE and value == int(value)


def _are_known(numbers, category_ids):
    try:
        return category_ids.issuperset(numbers)
    except TypeError:  # no list, or one of lists
        return False
