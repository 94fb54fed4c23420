"""YOLO segmentation text (Ultralytics): `labels/…/NAME.txt` with a polygon per line, for `images/…/NAME.jpg`."""

import os
import pathlib

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.outlines import IMAGE_ENDINGS, Instance, Outlines, Record, numbers, rectangle
from keras_maskrcnn.data.paths import regular
from keras_maskrcnn.data.sample import logger

CLASSES = "classes.txt"  # of Label Studio, in place of data.yaml
ENCODING = "utf-8-sig"  # editors on Windows write a byte order mark
MAX_DEPTH = 50  # of YAML
MAX_YAML = 2**17  # characters, for which the parser takes about ten seconds


class Yolo(Outlines):
    """Reads lines "class x1 y1 x2 y2 …", coordinates in shares of the image's width and height.

    A line of five numbers is a box (class, centre, width, height), whose mask is its rectangle. Images without a label
    file have no objects; label files without an image are logged and left out.

    Args:
        images: Folder of the images; its labels are where "images" in its path is replaced by "labels".
        class_names: list of names, or dict from numbers to names, as in `data.yaml`; None names the classes by their
            numbers.
        names: names of the image files without ending, such as those of a list; None takes all.
        broken: dict that receives the paths of label files that cannot be read, with reasons; None raises an error.

    Raises:
        DataError: there is no such folder or no image, or a line names a class that is not among the names.
    """

    def __init__(self, images, class_names=None, names=None, broken=None):
        folder = pathlib.Path(images)
        if not folder.is_dir():
            raise DataError(folder, "no such folder of images")
        labels = labels_of(folder)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
        paths = [path for path in paths if names is None or path.stem in names]
        classes = _classes(class_names)
        records, dropped = [], {}
        for path in paths:
            name = path.relative_to(folder).with_suffix("")
            try:
                instances = _instances(labels / f"{name}.txt", name, classes, dropped)
            except DataError as error:
                if broken is None:
                    raise
                broken[str(labels / f"{name}.txt")] = error.reason
                continue
            records.append(Record(path, name.as_posix(), instances))
        left = {file.relative_to(labels).with_suffix("").as_posix() for file in labels.rglob("*.txt")}
        if names is None and (left := sorted(left.difference(record.image_id for record in records))):
            logger.warning("%s: %d label files have no image (%s.txt)", labels, len(left), left[0])
        found = {instance.name for record in records for instance in record.instances}
        ordered = sorted(found, key=int) if classes is None else [classes[number] for number in sorted(classes)]
        super().__init__(folder, records, ordered, relative=True, dropped=dropped)


def read_yaml(path):
    """Names and folders in a `data.yaml`.

    The file says where the images are, which may be anywhere: absolute paths and `..` are what tools and users write.
    Only a folder that holds the folder of the file itself, such as `/`, is refused.

    Returns:
        (names, folders): dict from class numbers to names, or None; and dict from "train", "val", "test" to folders of
        images that exist. Folders are relative to `path` in the file, or to the file.

    Raises:
        DataError: the file is no YAML of this kind.
    """
    content = _yaml(path)
    if not isinstance(content, dict):
        raise DataError(path, "is no data.yaml: it has no names and folders")
    names = content.get("names")
    if names is not None and not isinstance(names, list | dict):
        raise DataError(path, "has names that are neither a list nor a dict")
    try:
        names = _classes(names)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(path, f"has names whose keys are not numbers ({error})") from error
    folders, root = {}, path.parent / str(content.get("path", "."))
    for split in ("train", "val", "test"):
        if isinstance(content.get(split), str):
            places = (root, path.parent, path.parent / "x")
            # The last place is for Roboflow, which writes ../train/images for the folder train next to the file.
            found = [pathlib.Path(os.path.normpath(place / content[split])) for place in places]
            folders[split] = next((folder.resolve() for folder in found if os.path.isdir(folder)), None)
    folders = {split: folder for split, folder in folders.items() if folder}
    for split, folder in folders.items():
        if folder in path.resolve().parent.parents:
            raise DataError(path, f"names the folder {folder} for {split}, which holds the folder of the file itself")
    return names, folders


def _yaml(path):
    """Content of a YAML file without aliases, by which a small file becomes a content of any size.

    Its size and depth are limited, because the parser's time grows with their product.
    """
    import yaml

    try:
        text = regular(path).read_text(ENCODING)
        if len(text) > MAX_YAML:
            raise ValueError(f"it has {len(text)} characters, more than {__name__}.MAX_YAML = {MAX_YAML}")
        depth = 0
        for token in map(type, yaml.scan(text)):
            depth += token.__name__.endswith("StartToken") - token.__name__.endswith("EndToken")
            if token is yaml.AliasToken or depth > MAX_DEPTH:
                raise ValueError("it has aliases" if token is yaml.AliasToken else "it is nested too deeply")
        return yaml.safe_load(text)
    except DataError:
        raise
    except Exception as error:  # such as a RecursionError, or a ValueError for a date that does not exist
        raise DataError(path, f"cannot be read as YAML ({error})") from error


def read_classes(path):
    """Returns the names in a `classes.txt`, one per line: a list.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return [line.strip() for line in regular(path).read_text(ENCODING).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"cannot be read ({error})") from error


def labels_of(folder):
    """Folder of the label files of a folder of images: the last "images" in its path becomes "labels"."""
    parts = list(pathlib.Path(folder).parts)
    if "images" not in parts:
        return pathlib.Path(folder)  # next to the images
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return pathlib.Path(*parts)


def _classes(class_names):
    """Dict from numbers to names, or None."""
    if class_names is None or isinstance(class_names, dict):
        return class_names and {int(number): str(name) for number, name in class_names.items()}
    return {number: str(name) for number, name in enumerate(class_names)}


def _instances(path, name, classes, dropped):
    try:
        lines = regular(path).read_text(ENCODING).splitlines() if os.path.exists(path) else []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"cannot be read ({error})") from error
    found = []
    for number, line in enumerate(lines, 1):
        place = f"{name}.txt, line {number}"
        if not line.strip():
            continue
        try:
            found.append(_instance(line.split(), classes, place))
        except ValueError as error:
            dropped[place] = str(error)
    return found


def _instance(words, classes, place):
    try:
        label, values = int(words[0].removesuffix(".0")), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError("it is not a class number and coordinates") from None
    if classes is not None and label not in classes:
        raise ValueError(f"its class {label} is not among the {len(classes)} names")
    values = numbers(values).tolist()
    if len(values) == 4:
        x, y, width, height = values
        values = rectangle(x - width / 2, y - height / 2, width, height)
    if len(values) % 2 or len(values) < 6:
        raise ValueError(f"it has {len(values)} coordinates, not pairs of three corners or more")
    return Instance(str(label) if classes is None else classes[label], [values], place)
