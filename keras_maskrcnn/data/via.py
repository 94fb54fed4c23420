"""VGG Image Annotator, versions 1 and 2: the JSON that it exports or saves as a project (Dutta & Zisserman 2019)."""

import pathlib

from keras_maskrcnn.data.errors import DataError, shown
from keras_maskrcnn.data.json_text import read_json
from keras_maskrcnn.data.outlines import Instance, Outlines, Record, ellipse, numbers, rectangle
from keras_maskrcnn.data.paths import inside

FILE = "via_region_data.json"
ATTRIBUTES = ("region_attributes", "shape_attributes")


class Via(Outlines):
    """Reads polygons, polylines (closed), circles, ellipses and rectangles; points have no area and are left out.

    `regions` may be a list (version 2) or a dict (version 1), as in matterport's balloon data. Images are found by
    their `filename`; `size` is ignored, since it is wrong in some files.

    Args:
        annotations: Path of the JSON file, or of the folder that holds `via_region_data.json` and the images.
        images: Folder of the image files; None for the folder of the JSON file.
        attribute: the region attribute that holds the class; None takes the only one there is. Regions without it have
            the class `default`.
        default: name of the class of regions without attributes, such as the only class of a data set.
        allow_outside: Whether a `filename` may be absolute or lead out of the folder of images.

    Raises:
        DataError: the file is missing or not of this tool, or regions have several attributes.
    """

    def __init__(self, annotations, images=None, attribute=None, default="object", allow_outside=False):
        path = pathlib.Path(annotations)
        path = path / FILE if path.is_dir() else path
        folder = pathlib.Path(path.parent if images is None else images)
        entries = entries_of(path)
        attribute = attribute or _only_attribute(path, entries)
        records, dropped = [], {}
        for key, entry in entries.items():
            name = str(entry.get("filename") or key)
            instances = []
            for number, region in _regions(path, name, entry):
                place = f"{name}, region {number}"
                try:
                    instances.append(_instance(region, attribute, default, place))
                except ValueError as error:
                    dropped[place] = str(error)
            records.append(Record(inside(folder, name, path, bool(allow_outside)), name, instances))
        super().__init__(path, records, dropped=dropped)


def entries_of(path):
    """Returns the entries of the images in a file: a dict; raises a DataError if it is not of this tool."""
    content = read_json(path)
    if isinstance(content, dict) and "_via_img_metadata" in content:  # a saved project
        content = content["_via_img_metadata"]
    is_via = isinstance(content, dict) and all(isinstance(e, dict) and "regions" in e for e in content.values())
    if not is_via or not content:
        raise DataError(path, "is no VIA file: it is not a dict of images with regions")
    return content


def _regions(path, name, entry):
    """Pairs of the number and the region."""
    regions = entry["regions"] or []
    if not isinstance(regions, list | dict):
        raise DataError(path, f"{shown(name)} has regions that are neither a list nor a dict")
    regions = list(regions.items()) if isinstance(regions, dict) else list(enumerate(regions))
    for _, region in regions:
        if not isinstance(region, dict) or not all(isinstance(region.get(key) or {}, dict) for key in ATTRIBUTES):
            raise DataError(path, f"{shown(name)} has a region that is not a dict, or whose attributes are none")
    return regions


def _only_attribute(path, entries):
    found = set()
    for key, entry in entries.items():
        for _, region in _regions(path, key, entry):
            found.update(region.get("region_attributes") or {})
    if len(found) > 1:
        raise DataError(path, f"regions have the attributes {', '.join(sorted(found))}: choose one by attribute=")
    return found.pop() if found else None


def _instance(region, attribute, default, place):
    value = (region.get("region_attributes") or {}).get(attribute)
    if isinstance(value, dict):  # a checkbox: dict from options to whether they are chosen
        value = next((option for option, chosen in value.items() if chosen), None)
    return Instance(str(value).strip() or default if value is not None else default, [_polygon(region)], place)


def _polygon(region):
    shape = region.get("shape_attributes") or {}
    name = shape.get("name")

    def of(*keys):
        return numbers([shape.get(key) for key in keys]).tolist()

    if name in ("polygon", "polyline"):
        x, y = numbers(shape.get("all_points_x")), numbers(shape.get("all_points_y"))
        if len(x) != len(y):
            raise ValueError(f"its polygon has {len(x)} x and {len(y)} y coordinates")
        return [value for pair in zip(x.tolist(), y.tolist(), strict=True) for value in pair]
    if name == "rect":
        return rectangle(*of("x", "y", "width", "height"))
    if name == "circle":
        cx, cy, radius = of("cx", "cy", "r")
        return ellipse(cx, cy, radius, radius)
    if name == "ellipse":
        theta = shape.get("theta", 0.0)
        return ellipse(*of("cx", "cy", "rx", "ry"), *numbers([theta]))
    raise ValueError(f"its shape {str(name)[:40]!r} has no area")
