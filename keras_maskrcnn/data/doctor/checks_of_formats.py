"""Checks of what single formats get wrong: COCO's keys and ids, VIA's sizes, YOLO's files."""

import collections

from keras_maskrcnn.data.doctor.findings import set_check
from keras_maskrcnn.data.doctor.stated import CocoFile, ViaFile, YoloFiles


def _coco(part):
    """Content of a COCO file; empty for other formats."""
    return part.files.content if isinstance(part.files, CocoFile) else {}


@set_check(
    "no-info",
    "note",
    "COCO files without info or licenses",
    "Some tools read these keys without asking whether they exist; pycocotools' loadRes copies `info`. Add empty ones.",
)
def no_info(part):
    """Keys of COCO's own files."""
    if content := _coco(part):
        missing = [key for key in ("info", "licenses") if key not in content]
        if missing:
            yield str(part.dataset.path), f"no {' and no '.join(missing)}"


@set_check(
    "ids",
    "note",
    "ids that start elsewhere than at 1 or have gaps",
    "Allowed, and the readers here map them. Code that uses an id as an index reads the wrong record or class.",
)
def ids(part):
    """Images, annotations and categories of COCO files."""
    for key, records in _coco(part).items():
        if key not in ("images", "annotations", "categories"):
            continue
        numbers = [record["id"] for record in records]
        if numbers and all(isinstance(number, int) for number in numbers):
            low, high = min(numbers), max(numbers)
            if low != 1 or high - low + 1 > len(numbers):
                gaps = high - low + 1 - len(numbers)
                yield str(part.dataset.path), f"{key}: ids {low} to {high}, {gaps} missing in between"


@set_check(
    "fractions",
    "note",
    "COCO boxes with fractions of pixels",
    "As in COCO's own files. Code that converts them to integers loses up to a pixel on each side.",
)
def fractions(part):
    """Boxes with a number that is not whole, or written as one with a point."""
    boxes = [annotation["bbox"] for annotation in _coco(part).get("annotations", []) if annotation.get("bbox")]
    count = sum(any(isinstance(value, float) for value in box) for box in boxes if isinstance(box, list))
    if count:
        yield str(part.dataset.path), f"{count} of {len(boxes)} boxes are floating-point numbers"


@set_check(
    "licences",
    "note",
    "images under licences that limit their use",
    "Pictures of them, and perhaps models, may not be sold (NonCommercial) or published changed (NoDerivs).",
)
def licences(part):
    """Names of licences in COCO files with the words of such limits."""
    listed = _coco(part).get("licenses") or []
    names = {licence.get("id"): str(licence.get("name")) for licence in listed if isinstance(licence, dict)}
    counts = collections.Counter(names.get(image.get("license")) for image in _coco(part).get("images", []))
    for name, count in counts.most_common():
        if name and ("NonCommercial" in name or "NoDerivs" in name):
            yield str(part.dataset.path), f"{count} images: {name}"


@set_check(
    "via-size",
    "note",
    "VIA entries whose `size` is not that of the file",
    "The image was saved again after it was annotated. Find images by their name, not by name and size.",
)
def via_size(part):
    """Bytes of the files that exist."""
    if isinstance(part.files, ViaFile):
        for record, entry in zip(part.dataset.records, part.files.entries.values(), strict=True):
            size = record.path.stat().st_size if record.path.is_file() else None
            if size is not None and "size" in entry and entry["size"] != size:
                yield str(record.path), f"size {entry['size']}, the file has {size} bytes"


@set_check(
    "via-layout",
    "note",
    "VIA files of version 1, or changed by hand",
    "`regions` as a dict (VIA 1) and keys without the size are read; code that expects a list or VIA's keys fails.",
)
def via_layout(part):
    """The type of `regions`, and the keys of the entries."""
    if not isinstance(part.files, ViaFile):
        return
    entries = part.files.entries
    dicts = sum(isinstance(entry["regions"], dict) for entry in entries.values())
    bare = sum(key == entry.get("filename") for key, entry in entries.items())
    if dicts:
        yield str(part.dataset.source), f"{dicts} of {len(entries)} images have regions as a dict (VIA 1)"
    if bare:
        yield str(part.dataset.source), f"{bare} of {len(entries)} keys are the bare file name, not name and size"


@set_check(
    "no-class",
    "warning",
    "regions without a class",
    "They all get one assumed class. Right for a set of one class; name it with `data.Via(…, default=…)`.",
)
def no_class(part):
    """VIA regions with empty attributes."""
    if isinstance(part.files, ViaFile):
        regions = [region for entry in part.files.entries.values() for region in _regions(entry)]
        count = sum(not region.get("region_attributes") for region in regions)
        if count:
            names = ", ".join(part.dataset.class_names)
            yield str(part.dataset.source), f"{count} of {len(regions)} regions; classes of the reader: {names}"


def _regions(entry):
    regions = entry["regions"] or []
    return regions.values() if isinstance(regions, dict) else regions


@set_check(
    "no-label-file",
    "warning",
    "YOLO images without a label file",
    "They are trained on as images without objects. Write an empty file if that is right, else annotate them.",
)
def no_label_file(part):
    """Images of YOLO sets."""
    if isinstance(part.files, YoloFiles):
        yield from ((name, "no label file") for name in part.files.without_labels)


@set_check(
    "no-image",
    "error",
    "YOLO label files without an image",
    "The image was lost or renamed, and its objects are not trained on.",
)
def no_image(part):
    """Label files of YOLO sets."""
    if isinstance(part.files, YoloFiles):
        yield from ((f"{part.files.labels / name}.txt", "no image") for name in part.files.without_image)
