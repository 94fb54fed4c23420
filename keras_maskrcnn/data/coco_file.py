"""The index of a COCO file: where each record is, and what readers need of all records at once.

All records that a reader depends on are checked when the index is made; a fault is a DataError of one line.
"""

import json
import os
import reprlib
from typing import NamedTuple

import numpy as np

from keras_maskrcnn.data import kept
from keras_maskrcnn.data.coco_annotations import Annotations
from keras_maskrcnn.data.json_text import Scanner
from keras_maskrcnn.data.sample import DataError

KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id"),
}
MAX_SIDE = 2**31  # pixels of an image's width and height


class Index(NamedTuple):
    """What is known of a COCO file without its records; annotations are ordered by image, then as in the file.

    Attributes:
        categories: list of dicts with `id` and `name`, in the order of their ids; class k is entry k - 1.
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


def is_indexed(path):
    """Whether a file is known to be a COCO file, because its index is kept."""
    return any(kept.is_kept(path, _kind(outside)) for outside in (False, True))


def load(path, allow_outside=False):
    """Returns the `Index` of a COCO file, which may have no `annotations`.

    Args:
        path: Path of the JSON file. The index of a large one is kept, see `kept`.
        allow_outside: Whether a `file_name` may be absolute or lead out of the folder of images.

    Raises:
        DataError: The file cannot be read, is not in the COCO format, or has two records with the same id.
    """
    try:
        version = kept.state(path)
        arrays = kept.arrays_of(path, _kind(allow_outside), lambda: _made(path, allow_outside))
    except FileNotFoundError:
        raise DataError(path, "no such annotation file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    texts = json.loads(arrays["texts"].tobytes())
    dropped = dict(texts.pop("dropped"))
    return Index(**texts, dropped=dropped, version=version, **{k: v for k, v in arrays.items() if k != "texts"})


def _kind(allow_outside):
    return f"COCO outside={bool(allow_outside)}"


def _made(path, allow_outside):
    """The arrays of a file's index; texts and ids are one of them, as JSON."""
    images, categories, annotations = _scanned(path)
    for index, (image, *_) in enumerate(images):
        for key in ("height", "width"):
            if not _is_side(image[key]):
                raise DataError(path, f"images[{index}] has the {key} {_shown(image[key])}, not a number of pixels")
        _check_name(path, index, image["file_name"], allow_outside)
    for index, (category, *_) in enumerate(categories):
        if not isinstance(category["name"], str | int | float):
            raise DataError(path, f"categories[{index}] has the name {_shown(category['name'])}, not a text")
    categories = sorted(({key: record[key] for key in KEYS["categories"]} for record, *_ in categories), key=_id)
    _check_ids(path, "annotations", annotations.ids)
    sizes = np.array([(int(image["height"]), int(image["width"])) for image, *_ in images], np.int64)
    image_ids = [image["id"] for image, *_ in images]
    rows, dropped = annotations.arrays(path, image_ids, sizes, [category["id"] for category in categories])
    texts = json.dumps({"categories": categories, "image_ids": image_ids, "dropped": list(dropped.items())})
    return {
        "texts": np.frombuffer(texts.encode(), np.uint8),
        "images": np.array([(start, end - start) for _, start, end in images], np.int64),
        "sizes": sizes,
        **rows,
    }


def _id(record):
    return record["id"]


def _scanned(path):
    """Images and categories, as lists of (record, start, end), and `Annotations`."""
    text = path.read_bytes()
    found = {"images": [], "categories": [], "annotations": Annotations()}
    try:
        if json.detect_encoding(text) not in ("utf-8", "utf-8-sig"):
            raise DataError(path, "is not UTF-8 text")
        if text.lstrip()[:1] == b"[":
            raise DataError(path, "is no COCO file: it lists no images")
        for key, value in Scanner(text).members(KEYS):
            if key in KEYS and not hasattr(value, "__next__"):
                raise DataError(path, f"is no COCO file: it lists no {key}")
            if key == "annotations":
                found[key] = Annotations()
                for index, (record, start, end) in enumerate(value):
                    _check_record(path, key, index, record)
                    found[key].add(record, start, end)
            elif key in KEYS:
                found[key] = list(value)
                _check_records(path, key, [record for record, *_ in found[key]])
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


def _check_records(path, kind, records):
    for index, record in enumerate(records):
        _check_record(path, kind, index, record)
    _check_ids(path, kind, [record["id"] for record in records])


def _check_record(path, kind, index, record):
    """Checks that a record has what readers need, and that all ids can be keys."""
    keys = KEYS[kind]
    if not isinstance(record, dict) or not all(key in record for key in keys):
        raise DataError(path, f"is no COCO file: {kind}[{index}] lacks one of {', '.join(sorted(keys))}")
    for key in (key for key in keys if key.endswith("id")):
        if type(record[key]) not in (int, str, float) or record[key] != record[key]:
            raise DataError(path, f"{kind}[{index}] has the {key} {_shown(record[key])}, not a number or a text")


def _check_ids(path, kind, numbers):
    """Checks that the ids of the records are different and can be sorted."""
    if len({type(number) is str for number in numbers}) > 1:
        raise DataError(path, f"the ids of {kind} are numbers and texts")
    if len(set(numbers)) < len(numbers):
        places = {}
        for index, number in enumerate(numbers):
            if number in places:
                both = f"{kind}[{places[number]}] and {kind}[{index}]"
                raise DataError(path, f"{both} have the id {_shown(number)}")
            places[number] = index


def _is_side(value):
    return type(value) in (int, float) and 1 <= value <= MAX_SIDE and value == int(value)


def _check_name(path, index, name, allow_outside):
    if not isinstance(name, str) or not name:
        raise DataError(path, f"images[{index}] has the file_name {_shown(name)}, not a text")
    if not allow_outside and (os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir):
        reason = "which is outside the folder of images (read it with allow_outside=True)"
        raise DataError(path, f"images[{index}] has the file_name {_shown(name)}, {reason}")


def _shown(value):
    return reprlib.repr(value)
