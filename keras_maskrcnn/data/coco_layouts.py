"""Where the files of COCO and its relatives lie: COCO, its panoptic files, CVAT, Roboflow, TrashCan, LVIS."""

import collections.abc
import functools
import itertools
import os

from keras_maskrcnn.data import coco_file
from keras_maskrcnn.data.coco import Coco
from keras_maskrcnn.data.coco_panoptic import SEGMENTS, CocoPanoptic
from keras_maskrcnn.data.json_text import Elements, content_with
from keras_maskrcnn.data.lvis import ABSENT, Lvis
from keras_maskrcnn.data.outlines import IMAGE_ENDINGS
from keras_maskrcnn.data.paths import folders, last_part, regular

KEYS = ("images", "categories")
SPLITS = {"train", "val", "valid", "validation", "test"}
STARTS = {"person_keypoints_": True, "instances_": False}  # of the names of files: whether they are about keypoints
PANOPTIC = "panoptic_"  # start of the names of files
TRASHCAN = "_trashcan"  # ending in TrashCan 1.0 (Hong, Fulton, Sattar 2020)


def coco(path):
    """Finds COCO's downloads, CVAT's, Roboflow's and TrashCan's folders, or one file; see `formats.FORMATS`."""
    if path.is_file():
        opener = _file(path)
        return {"all": opener} if opener else "no JSON with images and categories"
    found = _named(path) | _roboflow(path)
    versions = {} if found else {child.name: of for child in folders(path) if (of := _named(child))}
    if len(versions) > 1:
        return f"holds several data sets: open {' or '.join(versions)} in it"
    if found := found or next(iter(versions.values()), {}):
        return _splits(found)
    openers = files_in(path)
    if len(openers) == 1:
        return {"all": next(iter(openers.values()))}
    named = {file.stem.lower(): opener for file, opener in openers.items()}
    if "train" in named and SPLITS.issuperset(named):
        return named
    return "neither annotations/instances_NAME.json with a folder NAME, nor one JSON file, nor train.json and val.json"


def files_in(path):
    """COCO files in a folder, or else in `annotations` next to `images` there: dict from paths to their openers."""
    files = sorted(path.glob("*.json"))
    if (path / "images").is_dir():
        files = files or sorted(path.glob("annotations/*.json"))
    return {file: opener for file in files if (opener := _file(file))}


def lvis(path):
    """Finds LVIS' files, `lvis_v1_train.json` next to COCO's folders of photos or in `annotations` there."""
    if path.is_file():
        opener = functools.partial(Lvis, path, _photos(path))
        return {"all": opener} if _is_lvis(path, _kept_index(path)) else f"no JSON with {ABSENT}"
    files = [*sorted(path.glob("annotations/lvis_*.json")), *sorted(path.glob("lvis_*.json"))]
    found = {file.stem.split("_")[-1]: functools.partial(Lvis, file, _photos(file)) for file in files}
    return {name: opener for name, opener in found.items() if name in ("train", "val")} or "no lvis_v1_train.json"


def panoptic(path):
    """Finds COCO's panoptic files, `panoptic_NAME.json` next to a folder `panoptic_NAME` of PNG files, or one file."""
    if path.is_file():
        return {"all": _panoptic_file(path)} if is_panoptic(path) else f"no JSON with {SEGMENTS}"
    found = {}
    for file in (*path.glob(f"annotations/{PANOPTIC}*.json"), *path.glob(f"{PANOPTIC}*.json")):
        if folder := _folder_of(file, [path]) or _with_files(path / "images"):
            found[_name(file)] = functools.partial(CocoPanoptic, file, folder)
    if not found and len(files := list(filter(is_panoptic, path.glob("*.json")))) == 1:
        return {"all": _panoptic_file(*files)}
    return _splits(found) or f"neither {PANOPTIC}NAME.json with a folder NAME, nor one JSON with {SEGMENTS}"


def is_panoptic(path, index=None):
    """Whether a file is one of COCO panoptic; the kept `coco_file.Index` of another one may be known."""
    return not (index or _kept_index(path)) and _holds(path, SEGMENTS)


def _panoptic_file(path):
    folder = _images_of(path)
    if folder == path.with_suffix(""):  # of the PNG files of a.json, not of the images of a split
        folder = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    return functools.partial(CocoPanoptic, path, folder)


def _splits(found):
    """The sets by the names of splits: train2017 of COCO and Train of CVAT are "train"."""
    return {name.rstrip("0123456789").lower(): opener for name, opener in sorted(found.items())}


def _named(path):
    """Files `instances_NAME.json`, or else `person_keypoints_NAME.json`, with a folder NAME of images or `images`."""
    found = {}
    for start, keypoints in STARTS.items():
        for file in (*path.glob(f"annotations/{start}*.json"), *path.glob(f"{start}*.json")):
            if folder := _folder_of(file, [path]) or _with_files(path / "images"):
                found[_name(file)] = functools.partial(Coco, file, folder, keypoints=keypoints)
    return found


def _roboflow(path):
    files = path.glob("*/_annotations.coco.json")
    return {file.parent.name: functools.partial(Coco, file, file.parent) for file in files}


def _file(path):
    """Opens one COCO file, with keypoints if its categories have some; None for another file."""
    index = _kept_index(path)
    if _is_lvis(path, index) or is_panoptic(path, index):
        return None
    if index:
        content = {"categories": index.categories, "images": Elements(path, index.images, index.version)}
    elif not (content := content_with(path, KEYS)):
        return None
    categories = content["categories"] if isinstance(content["categories"], list) else []
    keypoints = any(isinstance(category, dict) and category.get("keypoints") for category in categories)
    folder = _images_of(path)
    by_name = _are_found_by_name(folder, content["images"])
    return functools.partial(Coco, path, folder, keypoints=keypoints, by_name=by_name)


def _images_of(path):
    """Folder of the images of one COCO file: with the name of its split, `images` near it, or its own folder."""
    if beside := _folder_of(path, [path.parent]):
        return beside
    above = [path.parent.parent / "images"] if path.parent.name == "annotations" else []
    places = [path.parent / "images", _folder_of(path, [path.parent.parent]), *above]
    return next((place for place in places if place and place.is_dir()), path.parent)


def _are_found_by_name(folder, images):
    """Whether images lie in a folder by the last part of their `file_name` only; the first that exists decides.

    Label Studio writes images/a.jpg, on Windows with a backslash, or a path on its server, for a.jpg in `images`.
    """
    for record in images if isinstance(images, collections.abc.Sequence) else ():
        name = record.get("file_name") if isinstance(record, dict) else None
        if isinstance(name, str) and os.path.isfile(folder / name):
            return False
        if isinstance(name, str) and os.path.isfile(folder / last_part(name)):
            return True
    return False


def _with_files(folder):
    """The folder if it holds image files itself, not in folders of splits; else None."""
    is_one = folder.is_dir() and any(path.suffix.lower() in IMAGE_ENDINGS for path in folder.iterdir())
    return folder if is_one else None


def _name(file):
    """Name of a split in the name of its file."""
    name = file.stem.removesuffix(TRASHCAN)
    for start in (*STARTS, PANOPTIC):
        name = name.removeprefix(start)
    return name


def _folder_of(file, roots):
    """Folder of images with the name of a file's split, or None."""
    places = [root / part for root in roots for part in (_name(file), f"images/{_name(file)}")]
    return next((place for place in places if place.is_dir()), None)


def _kept_index(path):
    """The `coco_file.Index` of a file where one is kept, so that a large file need not be read; else None."""
    choices = itertools.product((Coco, Lvis), (False, True), (False, True))
    kinds = (reader.options._replace(keypoints=keypoints, by_name=by_name) for reader, keypoints, by_name in choices)
    return next(filter(None, (coco_file.kept_index(path, options) for options in kinds)), None)


def _is_lvis(path, index):
    """Whether the records of images, of which the index may be known, have LVIS' lists of categories."""
    if index:
        return ABSENT in Elements(path, index.images, index.version)[0]
    return _holds(path, ABSENT)


def _holds(path, key):
    """Whether a key is anywhere in a JSON file."""
    return path.suffix == ".json" and f'"{key}"'.encode() in regular(path).read_bytes()


def _photos(file):
    """The folder that holds the folders of COCO's photos, for a file in it or in a folder of it."""
    root = file.absolute().parent
    places = (root, root.parent, root / "images", root.parent / "images")
    return next((place for place in places if (place / "train2017").is_dir() or (place / "val2017").is_dir()), root)
