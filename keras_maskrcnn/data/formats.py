"""Finds the reader of a file or folder of annotated images."""

import contextlib
import functools
import itertools
import os
import re

import numpy as np

from keras_maskrcnn.data import coco_layouts, mask_layouts
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.json_text import is_json, read_json
from keras_maskrcnn.data.outlines import IMAGE_ENDINGS
from keras_maskrcnn.data.paths import folders, regular
from keras_maskrcnn.data.sample import Dataset, Subset
from keras_maskrcnn.data.urls import Url, as_path

RECORD_ENDINGS = (".record", ".tfrecord", ".tfrecords")
UNREAD = {".csv": "CSV", ".jsonl": "JSON Lines", ".xml": "XML"}  # of tools that export other formats as well
VALIDATION = ("val", "valid", "validation", "test")  # names of the second split, in this order


def splits(path: str | os.PathLike) -> tuple[Dataset, Dataset]:
    """Opens the training and the validation set in a file or folder.

    Formats: COCO (the layout of its downloads, CVAT's, Roboflow's, TrashCan's, or a JSON file such as Label Studio's
    with its images next to it or in a folder `images` there; with keypoints if its categories have some), COCO panoptic
    where a folder has no other files of COCO, LVIS, VIA (matterport's layout, or a JSON file with the images), LabelMe,
    YOLO segmentation (`data.yaml`, `images/train`, `train/images`, or `images` with Label Studio's `classes.txt`),
    Pascal VOC, Cityscapes, Open Images, Penn-Fudan, the nuclei of the Data Science Bowl 2018, the files of CIS 680,
    TFRecord files with a label map (also a pattern such as `train.record-*`, and URLs such as `gs://bucket/folder`),
    and folders of images and mask files. Where there is one set only, every tenth image is held out.

    Args:
        path: str, Path or URL.

    Returns:
        (train, val): two `Dataset` with the same classes.

    Raises:
        DataError: no format fits, with the reason of each; or a file is damaged.
    """
    found = _found(as_path(path))
    if "train" not in found:
        return held_out(open(path), path)
    second = next((name for name in VALIDATION if name in found), None)
    train = found["train"]()
    if second is None:
        return held_out(train, path)
    val = found[second]()
    if list(val.class_names) != list(train.class_names):
        names = (", ".join(part.class_names) for part in (val, train))
        raise DataError(path, "{} has the classes {}, train {}".format(second, *names))
    return train, val


def open(path: str | os.PathLike, split: str | None = None) -> Dataset:
    """Opens the data set in a file or folder; formats and errors as for `splits`.

    Args:
        path: str, Path or URL.
        split: "train", "val" or another name in the folder; None for the only one.

    Returns:
        A `Dataset`.

    Raises:
        DataError: also for a split that does not exist, or if there are several and none is named.

    Example:
        >>> from keras_maskrcnn import data
        >>> written = data.write_yolo(data.Shapes(3), "shapes")
        >>> data.open("shapes").class_names
        ['circle', 'square', 'triangle']
    """
    found = _found(as_path(path))
    if split is None and len(found) == 1:
        split = next(iter(found))
    if split not in found:
        raise DataError(path, f"holds the splits {', '.join(sorted(found))}: choose one by split=")
    return found[split]()


def parts(path):
    """The sets in a file or folder; formats and errors as for `splits`.

    Args:
        path: str, Path or URL.

    Returns:
        Dict from the names of splits ("all" for the only one) to functions that open them.
    """
    return _found(as_path(path))


def held_out(dataset, source=None):
    """(train, val) of one data set: every tenth image is held out.

    Args:
        dataset: A `Dataset`.
        source: Where it comes from, for messages; None for the name of its class.

    Raises:
        DataError: there are fewer than two images.
    """
    if len(dataset) < 2:
        reason = "a data set of one image cannot be divided into training and validation"
        raise DataError(source or type(dataset).__name__, reason)
    positions = np.arange(len(dataset))
    return Subset(dataset, positions[positions % 10 > 0]), Subset(dataset, positions[::10])


def _found(path):
    """Dict from the names of splits ("all" for the only one) to functions that open them."""
    if isinstance(path, Url):
        return _of_url(path)
    if not regular(path).exists():
        return _of_shards(path)
    reasons = []
    for name, finder in FORMATS.items():
        try:
            found = finder(path)
        except OSError as error:  # no permission, for example
            raise DataError(error.filename or path, f"cannot be read ({error.strerror})") from error
        if isinstance(found, dict):
            return found
        reasons.append(f"{name}: {found}")
    for file in [path] if path.is_file() else sorted(path.glob("*.json")):
        if file.suffix == ".json":
            read_json(file)  # a damaged file is the reason why none fits
    raise DataError(path, _reason(path, f"no known format ({'; '.join(reasons)})"))


def _reason(path, reasons):
    """Why a file or folder is no data set; `reasons` of the formats where these say it best."""
    if path.is_file():
        return "is an image: give its annotations" if path.suffix.lower() in IMAGE_ENDINGS else reasons
    if len(files := list(coco_layouts.files_in(path))) > 1:
        names = ", ".join(file.name for file in files[:3])
        return f"holds {len(files)} COCO files ({names}): give one of them, or name two train.json and val.json"
    endings = {os.path.splitext(name)[1].lower() for _, _, names in os.walk(path) for name in names}
    if not endings:
        return f"is a folder without files: {reasons}"
    others = sorted(endings.difference(IMAGE_ENDINGS))
    if not others:
        return f"holds images, and no annotations: {reasons}"
    if all(other in UNREAD for other in others):
        return f"holds annotations as {' and '.join(map(UNREAD.get, others))}, export JSON or YOLO text: {reasons}"
    return reasons


def _of_url(url):
    """The sets behind a URL, which holds TFRecord files; see `_found`."""
    try:
        found = _tfrecord(url) if url.exists() else _of_shards(url)
    except OSError as error:
        raise DataError(url, f"cannot be read ({error.strerror})") from error
    if isinstance(found, dict):
        return found
    raise DataError(url, f"of URLs only TFRecord files are read: {found}")


def _of_shards(path):
    """The set of a pattern, or of sharded files without their numbers; see `_found`."""
    from keras_maskrcnn.data.record_shards import candidates
    from keras_maskrcnn.data.tf_record import TfRecord

    if not candidates(path):
        raise DataError(path, "no such file or folder")
    return {"all": functools.partial(TfRecord, path)}


def _via(path):
    from keras_maskrcnn.data.via import FILE, Via, entries_of

    if path.is_file():
        try:
            entries_of(path)
        except DataError:
            return "no JSON with regions"
        return {"all": functools.partial(Via, path)}
    for root in (path, *folders(path)):
        found = {child.name: functools.partial(Via, file) for child in folders(root) if (file := _via_file(child))}
        if found:
            return found
    return {"all": functools.partial(Via, file)} if (file := _via_file(path)) else f"no {FILE}, nor one JSON of VIA"


def _via_file(folder):
    """`via_region_data.json` in a folder, or the only JSON file if it is of VIA 2, which names it after its project."""
    from keras_maskrcnn.data.via import FILE, entries_of

    if (folder / FILE).is_file():
        return folder / FILE
    files = list(itertools.islice(folder.glob("*.json"), 2))
    with contextlib.suppress(DataError):
        return files[0] if len(files) == 1 and entries_of(files[0]) else None
    return None


def _labelme(path):
    from keras_maskrcnn.data.labelme import LabelMe

    def has(folder):
        first = next(iter(sorted(folder.glob("*.json"))), None)
        return first is not None and is_json(first, ("shapes", "imagePath"))

    if not path.is_dir():
        return "not a folder of JSON files"
    found = {child.name: functools.partial(LabelMe, child) for child in folders(path) if has(child)}
    if has(path):
        return {"all": functools.partial(LabelMe, path)}
    return found or "no JSON with shapes and imagePath"


def _yolo(path):
    from keras_maskrcnn.data.yolo import CLASSES, Yolo, read_classes, read_yaml

    yaml = path if path.suffix in (".yaml", ".yml") else next(iter(sorted(path.glob("*.yaml"))), None)
    names = None
    if yaml is not None and yaml.is_file():
        names, found = read_yaml(yaml)
        if found:
            return {split: functools.partial(Yolo, folder, names) for split, folder in found.items()}
    if not path.is_dir():
        return "no data.yaml"
    if names is None and (path / CLASSES).is_file():
        names = read_classes(path / CLASSES)
    found = {child.name.rstrip("0123456789"): child for child in folders(path / "images")}
    found |= {child.name: child / "images" for child in folders(path) if (child / "images").is_dir()}
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


def _cis680(path):
    from keras_maskrcnn.data.cis680 import FILES, Cis680

    if not (path / FILES["images"]).is_file():
        return f"no {FILES['images']}"
    return {split: functools.partial(Cis680, path, split) for split in ("train", "test")}


def _tfrecord(path):
    from keras_maskrcnn.data.record_index import SHARD
    from keras_maskrcnn.data.tf_record import TfRecord

    def is_record(file):
        return file.suffix in RECORD_ENDINGS or bool(SHARD.search(file.name))

    if path.is_file():
        return {"all": functools.partial(TfRecord, path)} if is_record(path) else f"no {' or '.join(RECORD_ENDINGS)}"
    children = sorted(path.iterdir())
    files = list(filter(is_record, children))
    # Asking each shard whether it is a folder would be a request for each, where the path is a URL.
    others = [child for child in children if not is_record(child) and child.is_dir()]
    files += [file for folder in others for file in sorted(folder.iterdir()) if is_record(file)]
    names = {file.with_name(SHARD.sub("", file.name)) for file in files}
    found = {_split_of(name, path): functools.partial(TfRecord, name) for name in sorted(names)}
    if len(found) < len(names):
        return f"several TFRecord files of one split, such as {min(names).name}: give one of them"
    return {"all": next(iter(found.values()))} if len(found) == 1 else found or "no TFRecord file"


def _split_of(file, root):
    """Split in the name of a TFRecord file, or the name of its folder."""
    found = [split for split in ("train", *VALIDATION) if re.search(rf"(?<![a-z]){split}(?![a-z])", file.name.lower())]
    return found[0] if found else file.name if file.parent == root else file.parent.name


# From names to functions of a path, which return a dict from the names of splits to functions that open them, or why
# the format does not fit. Layouts of folders without a file that is particular to the format come last.
FORMATS = {
    "COCO": coco_layouts.coco,
    "COCO panoptic": coco_layouts.panoptic,
    "LVIS": coco_layouts.lvis,
    "VIA": _via,
    "LabelMe": _labelme,
    "YOLO": _yolo,
    "Pascal VOC": mask_layouts.voc,
    "Cityscapes": mask_layouts.cityscapes,
    "Open Images": mask_layouts.open_images,
    "Penn-Fudan": mask_layouts.penn_fudan,
    "CIS 680": _cis680,
    "nuclei": mask_layouts.nuclei,
    "TFRecord": _tfrecord,
    "mask files": mask_layouts.mask_folder,
}
