"""Finds the reader of a file or folder of annotated images."""

import functools
import pathlib
import re

from keras_maskrcnn.data import coco_file
from keras_maskrcnn.data.outlines import IMAGE_ENDINGS, read_json
from keras_maskrcnn.data.sample import DataError, Subset

RECORD_ENDINGS = (".record", ".tfrecord", ".tfrecords")
VALIDATION = ("val", "valid", "validation", "test")  # names of the second split, in this order


def splits(path):
    """Opens the training and the validation set in a file or folder.

    Formats: COCO (the layout of its downloads, Roboflow's, or a JSON file with its images next to it or in a folder
    `images` there), VIA (matterport's layout, or a JSON file), LabelMe, YOLO segmentation (`data.yaml`, `images/train`,
    or `train/images`), Pascal VOC, Penn-Fudan, the nuclei of the Data Science Bowl 2018, and TFRecord files with a
    label map. Where there is one set only, every tenth image is held out.

    Args:
        path: str or Path.

    Returns:
        (train, val): two `Dataset` with the same classes.

    Raises:
        DataError: no format fits, with the reason of each; or a file is damaged.
    """
    found = _found(pathlib.Path(path))
    if "train" not in found:
        return held_out(found["all"]())
    second = next((name for name in VALIDATION if name in found), None)
    train = found["train"]()
    if second is None:
        return held_out(train)
    val = found[second]()
    if list(val.class_names) != list(train.class_names):
        names = (", ".join(part.class_names) for part in (val, train))
        raise DataError(path, "{} has the classes {}, train {}".format(second, *names))
    return train, val


def open(path, split=None):
    """Opens the data set in a file or folder; formats and errors as for `splits`.

    Args:
        path: str or Path.
        split: "train", "val" or another name in the folder; None for the only one.

    Returns:
        A `Dataset`.

    Raises:
        DataError: also for a split that does not exist, or if there are several and none is named.
    """
    found = _found(pathlib.Path(path))
    if split is None and len(found) == 1:
        split = next(iter(found))
    if split not in found:
        raise DataError(path, f"holds the splits {', '.join(sorted(found))}: choose one by split=")
    return found[split]()


def every_split(path):
    """Opens all that is in a file or folder; formats and errors as for `splits`.

    Args:
        path: str or Path.

    Returns:
        Dict from the names of the splits to functions that open them, "all" for the only one.
    """
    return _found(pathlib.Path(path))


def held_out(dataset):
    """(train, val) of one data set: every tenth image is held out.

    Raises:
        ValueError: there are fewer than two images.
    """
    if len(dataset) < 2:
        raise ValueError("a data set of one image cannot be divided into training and validation")
    every_tenth = range(0, len(dataset), 10)
    return Subset(dataset, [i for i in range(len(dataset)) if i % 10]), Subset(dataset, every_tenth)


def _found(path):
    """Dict from the names of splits ("all" for the only one) to functions that open them."""
    if not path.exists():
        raise DataError(path, "no such file or folder")
    reasons = []
    for name, finder in FORMATS.items():
        found = finder(path)
        if isinstance(found, dict):
            return found
        reasons.append(f"{name}: {found}")
    raise DataError(path, f"no known format ({'; '.join(reasons)})")


def _coco(path):
    from keras_maskrcnn.data.coco import Coco

    if path.is_file():
        if not _is_json(path, ("images", "categories")):
            return "no JSON with images and categories"
        return {"all": functools.partial(Coco, path, _images_of(path))}
    files = {file.stem.removeprefix("instances_"): file for file in sorted(path.glob("annotations/instances_*.json"))}
    found = {name: functools.partial(Coco, file, path / name) for name, file in files.items() if (path / name).is_dir()}
    found |= {
        file.parent.name: functools.partial(Coco, file, file.parent)
        for file in sorted(path.glob("*/_annotations.coco.json"))
    }  # Roboflow
    plain = {name.rstrip("0123456789"): opener for name, opener in sorted(found.items())}  # train2017
    alone = [file for file in sorted(path.glob("*.json")) if _is_json(file, ("images", "categories"))]
    if not plain and len(alone) == 1:
        return {"all": functools.partial(Coco, alone[0], _images_of(alone[0]))}
    return plain or "neither annotations/instances_NAME.json with a folder NAME, nor one JSON file"


def _images_of(path):
    """Folder of the images of a COCO file: `images` next to it, if there is one."""
    return path.parent / "images" if (path.parent / "images").is_dir() else path.parent


def _via(path):
    from keras_maskrcnn.data.via import FILE, Via, entries_of

    if path.is_file():
        try:
            entries_of(path)
        except DataError:
            return "no JSON with regions"
        return {"all": functools.partial(Via, path)}
    for root in (path, *_folders(path)):
        found = {file.parent.name: functools.partial(Via, file.parent) for file in sorted(root.glob(f"*/{FILE}"))}
        if found:
            return found
    return {"all": functools.partial(Via, path)} if (path / FILE).is_file() else f"no {FILE}"


def _labelme(path):
    from keras_maskrcnn.data.labelme import LabelMe

    def has(folder):
        first = next(iter(sorted(folder.glob("*.json"))), None)
        return first is not None and _is_json(first, ("shapes", "imagePath"))

    if not path.is_dir():
        return "not a folder of JSON files"
    found = {child.name: functools.partial(LabelMe, child) for child in _folders(path) if has(child)}
    if has(path):
        return {"all": functools.partial(LabelMe, path)}
    return found or "no JSON with shapes and imagePath"


def _yolo(path):
    from keras_maskrcnn.data.yolo import Yolo, read_yaml

    yaml = path if path.suffix in (".yaml", ".yml") else next(iter(sorted(path.glob("*.yaml"))), None)
    names = None
    if yaml is not None and yaml.is_file():
        names, found = read_yaml(yaml)
        if found:
            return {split: functools.partial(Yolo, folder, names) for split, folder in found.items()}
    if not path.is_dir():
        return "no data.yaml"
    found = {child.name.rstrip("0123456789"): child for child in _folders(path / "images")}
    found |= {child.name: child / "images" for child in _folders(path) if (child / "images").is_dir()}
    if not found and (path / "images").is_dir():
        found = {"all": path / "images"}
    found = {split: folder for split, folder in found.items() if _has_label_files(folder)}
    if len(found) == 1:
        found = {"all": next(iter(found.values()))}
    openers = {split: functools.partial(Yolo, folder, names) for split, folder in found.items()}
    return openers or "no folders images and labels"


def _has_label_files(folder):
    from keras_maskrcnn.data.yolo import labels_of

    labels = labels_of(folder)
    has_images = any(file.suffix.lower() in IMAGE_ENDINGS for file in folder.iterdir())
    return has_images and labels != folder and labels.is_dir() and any(labels.glob("*.txt"))


def _voc(path):
    from keras_maskrcnn.data.voc import LISTS, Voc

    if not all((path / folder).is_dir() for folder in ("JPEGImages", "SegmentationObject", "SegmentationClass")):
        return "no folders JPEGImages, SegmentationObject, SegmentationClass"
    lists = [name for name in ("train", "val") if (path / LISTS / f"{name}.txt").is_file()]
    return {name: functools.partial(Voc, path, name) for name in lists or ["all"]}


def _penn_fudan(path):
    from keras_maskrcnn.data.penn_fudan import PennFudan

    return _listed(path, PennFudan, "PNGImages", "PedMasks")


def _nuclei(path):
    from keras_maskrcnn.data.nuclei import Nuclei

    return _listed(path, Nuclei, "stage1_train")


def _tfrecord(path):
    from keras_maskrcnn.data.tf_record import SHARD, TfRecord

    def is_record(file):
        return file.suffix in RECORD_ENDINGS or bool(SHARD.search(file.name))

    if path.is_file():
        return {"all": functools.partial(TfRecord, path)} if is_record(path) else f"no {' or '.join(RECORD_ENDINGS)}"
    files = [file for root in (path, *_folders(path)) for file in sorted(root.iterdir()) if is_record(file)]
    names = {file.with_name(SHARD.sub("", file.name)) for file in files}
    found = {_split_of(name, path): functools.partial(TfRecord, name) for name in sorted(names)}
    if len(found) < len(names):
        return f"several TFRecord files of one split, such as {min(names).name}: give one of them"
    return {"all": next(iter(found.values()))} if len(found) == 1 else found or "no TFRecord file"


def _split_of(file, root):
    """Split in the name of a TFRecord file, or the name of its folder."""
    found = [split for split in ("train", *VALIDATION) if re.search(rf"(?<![a-z]){split}(?![a-z])", file.name.lower())]
    return found[0] if found else file.name if file.parent == root else file.parent.name


def _listed(path, reader, *folders):
    """Splits of a reader with lists of names, `train.txt` and so on; all images without lists."""
    if not all((path / folder).is_dir() for folder in folders):
        return f"no folder {' and '.join(folders)}"
    lists = [name for name in ("train", *VALIDATION) if (path / f"{name}.txt").is_file()]
    return {name: functools.partial(reader, path, name) for name in lists or ["all"]}


def _folders(path):
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


def _is_json(path, keys):
    """Whether a file is JSON, a dict with some keys."""
    if "categories" in keys and coco_file.is_indexed(path):
        return True
    try:
        content = read_json(path)
    except DataError:
        return False
    return isinstance(content, dict) and all(key in content for key in keys)


FORMATS = {
    "COCO": _coco,
    "VIA": _via,
    "LabelMe": _labelme,
    "YOLO": _yolo,
    "Pascal VOC": _voc,
    "Penn-Fudan": _penn_fudan,
    "nuclei": _nuclei,
    "TFRecord": _tfrecord,
}
