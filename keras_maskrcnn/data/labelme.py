"""LabelMe (wkentaro/labelme): one JSON file per image."""

import collections
import contextlib
import math
import os
import pathlib

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.json_text import read_json
from keras_maskrcnn.data.outlines import Instance, Outlines, Record, ellipse, numbers, rectangle
from keras_maskrcnn.data.paths import inside, last_part

AREAS = ("polygon", "rectangle", "circle", "linestrip")


class LabelMe(Outlines):
    """Reads polygons, rectangles, circles and closed line strips; points and lines have no area and are left out.

    Shapes with the same label and `group_id` are parts of one instance.

    Args:
        folder: Folder of the JSON files. Each image lies next to its file, by the name in `imagePath`; or else at
            `imagePath`, as far as that stays in the folder that `folder` is in, such as `../images/a.png`.
        class_names: names of the classes; None takes those of the shapes, sorted.
        broken: dict that receives the paths of files that cannot be read, with reasons; None raises an error for them.

    Raises:
        DataError: the folder has no JSON file of this tool, or one cannot be read.
    """

    def __init__(self, folder, class_names=None, broken=None):
        folder = pathlib.Path(folder)
        paths = sorted(folder.glob("**/*.json"))
        if not paths:
            raise DataError(folder, "has no JSON file of LabelMe" if folder.is_dir() else "no such folder")
        records, dropped = [], {}
        for path in paths:
            try:
                records.append(_record(folder, path, dropped))
            except DataError as error:
                if broken is None:
                    raise
                broken[str(path)] = error.reason
        super().__init__(folder, records, class_names, dropped=dropped)


def is_labelme(content):
    """Whether the content of a JSON file has the keys of this tool."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _record(folder, path, dropped):
    content = read_json(path)
    if not is_labelme(content):
        raise DataError(path, "is no file of LabelMe: it has no shapes and imagePath")
    groups = collections.defaultdict(list)
    name = path.relative_to(folder).with_suffix("").as_posix()
    for number, shape in enumerate(content["shapes"]):
        place = f"{name}, shape {number}"
        try:
            label, group, polygon = _shape(shape)
        except ValueError as error:
            dropped[place] = str(error)
            continue
        groups[(label, group) if group is not None else place].append((label, polygon, place))
    instances = [Instance(parts[0][0], [part[1] for part in parts], parts[0][2]) for parts in groups.values()]
    size = (content.get("imageHeight"), content.get("imageWidth"))
    size = size if all(type(side) is int and side > 0 for side in size) else None
    return Record(_image(folder, path, str(content["imagePath"])), name, instances, size)


def _image(folder, path, stated):
    """Path of the image of a JSON file: the tool writes where it was on its machine, relative to the file or not."""
    beside, root = inside(path.parent, last_part(stated), path), folder.parent
    if os.path.exists(beside):
        return beside
    with contextlib.suppress(DataError):  # it leads elsewhere, as absolute paths do
        place = inside(root, os.path.join(path.parent.relative_to(root), stated.replace("\\", "/")), path)
        return place if os.path.isfile(place) else beside
    return beside


def _shape(shape):
    """Label, group or None, and polygon."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
        raise ValueError("it has no label")
    if not isinstance(shape.get("group_id"), int | str | None):
        raise ValueError("its group_id is neither a number nor a text")
    points = shape.get("points") if isinstance(shape.get("points"), list) else []
    points = [value for point in points for value in (point if isinstance(point, list) else [None])]
    points, kind = numbers(points).tolist(), shape.get("shape_type") or "polygon"
    if kind not in AREAS:
        raise ValueError(f"its shape {str(kind)[:40]!r} has no area")
    if kind in ("rectangle", "circle") and len(points) != 4:
        raise ValueError(f"its {kind} has {len(points) // 2} points, not 2")
    if kind == "rectangle":
        x1, y1, x2, y2 = points
        points = rectangle(x1, y1, x2 - x1, y2 - y1)
    if kind == "circle":  # centre, and a point on it
        x1, y1, x2, y2 = points
        radius = math.hypot(x2 - x1, y2 - y1)
        points = ellipse(x1, y1, radius, radius)
    return shape["label"], shape.get("group_id"), points
