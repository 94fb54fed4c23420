"""Where the JSON files and the images of COCO and its relatives lie: COCO, Roboflow, TrashCan, LVIS."""

import functools
import pathlib

from keras_maskrcnn.data.coco import Coco
from keras_maskrcnn.data.lvis import Lvis
from keras_maskrcnn.data.paths import content_with, folders

KEYS = ("images", "categories")
TRASHCAN = "_trashcan"  # TrashCan 1.0 (Hong, Fulton, Sattar 2020): instances_train_trashcan.json next to train/
LVIS_KEY = b'"neg_category_ids"'


def coco(path):
    """Finds COCO's downloads, Roboflow's and TrashCan's folders, or one file; see `formats.FORMATS`."""
    if path.is_file():
        opener = _file(path)
        return {"all": opener} if opener else "no JSON with images and categories"
    versions = [child for child in folders(path) if _trashcan(child)]
    if len(versions) > 1:
        names = " or ".join(version.name for version in versions)
        return f"neither this nor that of several data sets: open {names} in it"
    found = _downloads(path) | _roboflow(path) | _trashcan(versions[0] if versions else path)
    if found:
        return {name.rstrip("0123456789"): opener for name, opener in sorted(found.items())}  # train2017
    openers = [opener for file in sorted(path.glob("*.json")) if (opener := _file(file))]
    if len(openers) == 1:
        return {"all": openers[0]}
    return "neither annotations/instances_NAME.json with a folder NAME, nor one JSON file"


def lvis(path):
    """Finds LVIS' files, `lvis_v1_train.json` next to COCO's folders of photos or in `annotations` there."""
    if path.is_file():
        is_lvis = path.suffix == ".json" and LVIS_KEY in path.read_bytes()
        return {"all": functools.partial(Lvis, path, _photos(path))} if is_lvis else "no JSON with neg_category_ids"
    files = [file for place in (path, path / "annotations") for file in sorted(place.glob("lvis_*.json"))]
    found = {file.stem.split("_")[-1]: functools.partial(Lvis, file, _photos(file)) for file in files}
    found = {name: opener for name, opener in found.items() if name in ("train", "val")}
    return found or "no lvis_v1_train.json"


def _downloads(path):
    """COCO's downloads: `instances_NAME.json`, or else `person_keypoints_NAME.json`."""
    found = {}
    for start, keypoints in (("person_keypoints_", True), ("instances_", False)):
        files = {file.stem.removeprefix(start): file for file in path.glob(f"annotations/{start}*.json")}
        opener = functools.partial(Coco, keypoints=keypoints)
        found |= {
            name: functools.partial(opener, file, path / name) for name, file in files.items() if (path / name).is_dir()
        }
    return found


def _roboflow(path):
    files = path.glob("*/_annotations.coco.json")
    return {file.parent.name: functools.partial(Coco, file, file.parent) for file in files}


def _trashcan(path):
    files = {
        file.stem.removeprefix("instances_").removesuffix(TRASHCAN): file
        for file in path.glob(f"instances_*{TRASHCAN}.json")
    }
    return {name: functools.partial(Coco, file, path / name) for name, file in files.items() if (path / name).is_dir()}


def _file(path):
    """Opens one COCO file, with keypoints if its categories have some; None for another file."""
    content = content_with(path, KEYS)
    if content is None:
        return None
    categories = content["categories"] if isinstance(content["categories"], list) else []
    keypoints = any(isinstance(category, dict) and category.get("keypoints") for category in categories)
    return functools.partial(Coco, path, _images_of(path), keypoints=keypoints)


def _images_of(path):
    """Folder of the images of a COCO file: `images` next to it, if there is one."""
    return path.parent / "images" if (path.parent / "images").is_dir() else path.parent


def _photos(path):
    """The folder that holds the folders of COCO's photos, for a file in it or in a folder of it."""
    root = pathlib.Path(path).absolute().parent
    places = (root, root.parent, root / "images", root.parent / "images")
    return next((place for place in places if (place / "train2017").is_dir() or (place / "val2017").is_dir()), root)
