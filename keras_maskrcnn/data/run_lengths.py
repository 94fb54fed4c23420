"""Segmentations of COCO files as run lengths, checked before pycocotools reads them.

pycocotools does not check its input: it writes outside its buffers, or allocates memory in proportion to the
coordinates.
"""

import reprlib

import numpy as np
from pycocotools import mask as run_length

MAX_OUTLINE = 1_000_000  # pixels: largest coordinate, and largest sum of |dx| + |dy| along the polygons of an instance

UNREADABLE = "its mask is neither polygons nor run lengths"


def run_lengths(segmentation, size):
    """Returns a segmentation in pycocotools' compressed form, or None for polygons without three corners.

    Args:
        segmentation: The value in a COCO file: a list of polygons, or a dict of run lengths.
        size: (H, W) of the image.

    Raises:
        ValueError: It cannot be read; the message is the reason.
    """
    if isinstance(segmentation, list):
        return _polygons(segmentation, size)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError(UNREADABLE)
    run_size, counts = segmentation["size"], segmentation["counts"]
    if run_size != list(size):
        raise ValueError(f"its mask has the size {reprlib.repr(run_size)}, the image {list(size)}")
    lengths = _unpacked(counts) if isinstance(counts, str) else _numbers(counts)
    if lengths.dtype.kind not in "iu" or (lengths < 0).any():
        raise ValueError(UNREADABLE)
    if lengths.sum(dtype=np.float64) != size[0] * size[1]:
        raise ValueError("its run lengths do not add up to the image's pixels")
    if isinstance(counts, str):
        return {"size": run_size, "counts": counts.encode()}
    return run_length.frPyObjects({"size": run_size, "counts": counts}, *size)


def _numbers(values):
    """Returns a list of numbers as a 1-D array; raises ValueError for anything else."""
    try:
        numbers = np.array(values if isinstance(values, list) else None)
    except ValueError:  # lists of different lengths among the numbers
        numbers = np.array(None)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise ValueError(UNREADABLE)
    return numbers


def _unpacked(text):
    """Returns the counts of a compressed run-length code, int64 [n]; see rleFrString in pycocotools' maskApi.c.

    Each character holds five bits of a signed number, the lowest first, and a flag that more follow. From the fourth
    number on it is the difference from the number two places before.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError(UNREADABLE)
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 7:
        raise ValueError(UNREADABLE)
    places = np.arange(len(codes)) - np.repeat(starts, digits)
    numbers = np.add.reduceat((codes & 31) << 5 * places, starts)
    numbers -= np.where(codes[ends] & 16, 1 << 5 * digits, 0)
    numbers[2::2], numbers[1::2] = np.cumsum(numbers[2::2]), np.cumsum(numbers[1::2])
    return numbers


def _polygons(polygons, size):
    kept, outline = [], 0.0
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError(UNREADABLE)
        if len(polygon) < 6:
            continue
        corners = _numbers(polygon + polygon[:2]).astype(np.float64, copy=False)
        if not np.abs(corners).max() <= MAX_OUTLINE:  # also where one is NaN
            raise ValueError(
                f"its polygons have coordinates that are not finite or beyond {__name__}.MAX_OUTLINE = {MAX_OUTLINE}"
            )
        outline += np.abs(corners[2:] - corners[:-2]).sum()
        kept.append(polygon)
    if outline > MAX_OUTLINE:
        raise ValueError(f"its polygons are longer than {__name__}.MAX_OUTLINE = {MAX_OUTLINE}")
    return run_length.merge(run_length.frPyObjects(kept, *size)) if kept else None


def decode(runs, size):
    """Returns the masks of compressed run lengths: bool [n, H, W]."""
    if not runs:
        return np.zeros((0, *size), bool)
    return run_length.decode(runs).transpose(2, 0, 1).view(bool)  # column-major; parts are copied later


def encode_mask(mask):
    """COCO's compressed run-length code of a boolean [H, W] mask: {"size": [H, W], "counts": text}."""
    code = run_length.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def encode_crop(left, top, mask, size):
    """`encode_mask` of a mask whose pixels lie in a rectangle; the time depends on the rectangle only.

    Args:
        left: x of the rectangle's first column.
        top: y of its first row.
        mask: bool [h, w], inside the image.
        size: (H, W) of the image.
    """
    height, width = map(int, size)
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = mask.T
    column, row = np.nonzero(np.diff(columns, axis=1))
    # A run that ends at the bottom of the image and goes on at the top of the next column is one run.
    places, times = np.unique((left + column) * height + top + row, return_counts=True)
    counts = np.diff(places[times == 1], prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    code = run_length.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def box_polygons(box):
    """The segmentation of a COCO box x, y, width, height: one polygon."""
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def is_box(value):
    """Whether a value of a COCO file is a list of four numbers, which may be NaN or infinite."""
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value):
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def scored_annotation(annotation, size):
    """Returns an annotation of a COCO file as `Dataset.coco_annotations` describes, or None if nothing can be read.

    Where the mask cannot be read, it is that of the box, and the other way round.
    """
    box, runs, unreadable = annotation.get("bbox"), _runs_or_none(annotation.get("segmentation"), size), []
    if runs is None:
        unreadable.append("segm")
        if not is_box(box) or not np.isfinite(box).all():
            return None
        runs = _runs_or_none(box_polygons(box), size)
        if runs is None:
            return None
    elif not is_box(box) or not np.isfinite(box).all():
        unreadable += ["bbox"] if "bbox" in annotation else []
        box = run_length.toBbox(runs).tolist()
    if annotation.get("iscrowd") not in (0, 1, None):
        unreadable = ["bbox", "segm"]
    area = annotation.get("area")
    return {
        "bbox": box,
        "area": area if _is_number(area) and np.isfinite(area) else float(run_length.area(runs)),
        "iscrowd": int(annotation.get("iscrowd") == 1),
        "segmentation": runs,
        "unreadable": unreadable,
    }


def _runs_or_none(segmentation, size):
    try:
        return run_lengths(segmentation, size) if segmentation else None
    except ValueError:
        return None
