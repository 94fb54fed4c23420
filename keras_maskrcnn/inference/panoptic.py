"""Panoptic maps: every pixel belongs to one segment at most, an object ("thing") or a region ("stuff").

Detections and the semantic map are merged by the heuristics of Panoptic FPN (Kirillov et al. 2019, section 4.1), which
are those of "Panoptic Segmentation" (Kirillov et al. 2019, section 5).
"""

import typing

import numpy as np

from keras_maskrcnn.data.cropped_masks import crop_of

VOID = 0  # id of the pixels that belong to no segment


class Segment(typing.NamedTuple):
    """A segment of a panoptic map.

    Attributes:
        id: its pixels in the map have this number, 1 or more.
        thing: whether it is an object; else it is a region, of which there is one per class.
        label: class, 1…K of the things or 1…S of the stuff.
        area: number of its pixels.
        score: of a detection; None for stuff and ground truth.
        crowd: whether it is a group of objects of the ground truth that is not counted.
    """

    id: int
    thing: bool
    label: int
    area: int
    score: float | None = None
    crowd: bool = False


class Panoptic(typing.NamedTuple):
    """A panoptic map.

    Attributes:
        ids: int32 `[H, W]`, the id of the segment of each pixel, or `VOID`.
        segments: list of `Segment`.
    """

    ids: np.ndarray
    segments: list


def panoptic(found, score_threshold=0.5, overlap=0.5, stuff_area=4096):
    """Merges detections and a semantic map.

    From the highest score to the lowest, an instance takes the pixels of its mask that no other one has, unless more
    than the share `overlap` of the mask is taken already. Each class of stuff then takes the free pixels of its label,
    unless they are fewer than `stuff_area`.

    Args:
        found: result of `detect` for one image of a model with masks and a `heads.semantic.SemanticHead`: `labels`,
            `scores` `[n]`, `masks` bool `[n, H, W]` or `CroppedMasks`, and `semantic` uint8 `[H, W]`, 0 on things.
        score_threshold: minimum score of an instance; `detect` must have returned it.
        overlap: share in [0, 1].
        stuff_area: minimum number of pixels of a region. The default is the paper's, for images of about 800 x 600
            pixels.

    Returns:
        `Panoptic`.

    Raises:
        ValueError: if `found` has no masks or no semantic map.
    """
    missing = [name for name in ("masks", "semantic") if name not in found]
    if missing:
        raise ValueError(f"panoptic merging needs {' and '.join(missing)}, which the model does not predict")
    semantic, scores = np.asarray(found["semantic"]), np.asarray(found["scores"])
    ids, segments = np.full(semantic.shape, VOID, np.int32), []
    for row in np.argsort(-scores, kind="stable"):
        if scores[row] < score_threshold:
            break
        crop = crop_of(found["masks"], row)
        x1, y1, x2, y2 = crop.box
        part = ids[y1:y2, x1:x2]
        free = crop.mask & (part == VOID)
        area, whole = int(np.count_nonzero(free)), np.count_nonzero(crop.mask)
        if area and whole - area <= overlap * whole:
            segments.append(Segment(len(segments) + 1, True, int(found["labels"][row]), area, float(scores[row])))
            part[free] = len(segments)
    return Panoptic(ids, segments + _add_stuff(ids, semantic, len(segments), stuff_area))


def panoptic_truth(sample, field="semantic"):
    """The panoptic map of a sample's ground truth.

    Where masks overlap, the first one has the pixel. Pixels of the map with the label 0 or `LabelMap.ignore` that no
    mask covers belong to no segment.

    Args:
        sample: a sample with a `data.LabelMap`.
        field: its name.

    Returns:
        `Panoptic`.
    """
    semantic = sample[field]
    ignore = next((of.ignore for of in sample.get("fields", ()) if of.name == field), 255)
    ids, segments = np.full(semantic.shape, VOID, np.int32), []
    for mask, label, crowd in zip(sample["masks"], sample["labels"], sample["crowd"], strict=True):
        free = mask & (ids == VOID)
        if free.any():
            segments.append(Segment(len(segments) + 1, True, int(label), int(free.sum()), None, bool(crowd)))
            ids[free] = len(segments)
    stuff = np.where(semantic == ignore, 0, semantic)
    return Panoptic(ids, segments + _add_stuff(ids, stuff, len(segments), 1))


def regions(semantic):
    """The panoptic map of a label map alone: a segment of stuff for each label of uint8 [H, W] but 0."""
    ids = np.full(semantic.shape, VOID, np.int32)
    return Panoptic(ids, _add_stuff(ids, semantic, 0, 1))


def _add_stuff(ids, semantic, count, least):
    """Writes a segment for each label of a map into the free pixels of `ids`; returns the `Segment`s."""
    segments, free = [], ids == VOID
    areas = np.bincount(semantic[free], minlength=1)
    for label in np.flatnonzero(areas >= max(least, 1)).tolist():
        if label:
            segments.append(Segment(count + len(segments) + 1, False, label, int(areas[label])))
            ids[free & (semantic == label)] = segments[-1].id
    return segments
