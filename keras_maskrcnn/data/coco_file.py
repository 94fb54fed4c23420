"""Loads a COCO file and checks all records that a reader depends on; a fault is a DataError of one line."""

import json
import os
import reprlib

from keras_maskrcnn.data.sample import DataError

KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id"),
}
MAX_SIDE = 2**31  # pixels of an image's width and height


def load(path, allow_outside=False, address=None):
    """Returns the content of a COCO file; `annotations` is an empty list if the file has none.

    Args:
        path: Path of the JSON file.
        allow_outside: Whether a `file_name` may be absolute or lead out of the folder of images.
        address: Key of the web address of an image, such as "coco_url", whose last two parts replace its `file_name`;
            None reads `file_name`.

    Raises:
        DataError: The file cannot be read, is not in the COCO format, or has two records with the same id.
    """
    content = _parsed(path)
    if not isinstance(content, dict):
        raise DataError(path, "is no COCO file: it lists no images")
    content.setdefault("annotations", [])  # missing in a file of negatives, or of images to predict on
    for kind, keys in KEYS.items():
        keys = [address if address and key == "file_name" else key for key in keys]
        records = content.get(kind)
        if not isinstance(records, list) or (not records and kind != "annotations"):
            raise DataError(path, f"is no COCO file: it lists no {kind}")
        for index, record in enumerate(records):
            if not isinstance(record, dict) or not all(key in record for key in keys):
                raise DataError(path, f"is no COCO file: {kind}[{index}] lacks one of {', '.join(sorted(keys))}")
        _check_ids(path, kind, records)
    for index, image in enumerate(content["images"]):
        for key in ("height", "width"):
            if not _is_side(image[key]):
                raise DataError(path, f"images[{index}] has the {key} {_shown(image[key])}, not a number of pixels")
        if address:
            image["file_name"] = "/".join(str(image[address]).split("/")[-2:])
        _check_name(path, index, image["file_name"], allow_outside)
    for index, category in enumerate(content["categories"]):
        if not isinstance(category["name"], str | int | float):
            raise DataError(path, f"categories[{index}] has the name {_shown(category['name'])}, not a text")
    return content


def _parsed(path):
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(path, "no such annotation file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    except RecursionError:
        raise DataError(path, "is no COCO file: its lists are nested too deeply") from None
    except ValueError as error:
        reason = "the annotation file is empty" if not path.stat().st_size else f"is not valid JSON ({error})"
        raise DataError(path, reason) from error


def _check_ids(path, kind, records):
    """Checks that all ids can be keys, and that those of the records are different and can be sorted."""
    for key in (key for key in KEYS[kind] if key.endswith("id")):
        for index, record in enumerate(records):
            if type(record[key]) not in (int, str, float) or record[key] != record[key]:
                raise DataError(path, f"{kind}[{index}] has the {key} {_shown(record[key])}, not a number or a text")
    numbers = [record["id"] for record in records]
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
