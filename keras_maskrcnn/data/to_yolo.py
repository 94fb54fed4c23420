"""Writes any data set as YOLO segmentation text (Ultralytics), see `yolo`."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
from pycocotools import mask as run_length

from keras_maskrcnn.data.cache import read_or_skip
from keras_maskrcnn.data.encoded import ENDINGS, encoded_image
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.rings import joined, rings, signed_area
from keras_maskrcnn.data.run_lengths import run_lengths
from keras_maskrcnn.data.sample import Dataset, log_fields
from keras_maskrcnn.data.yolo import read_yaml

DIGITS = 8  # significant ones of a coordinate: less than a thousandth of a pixel


class Written(NamedTuple):
    """What was written, and what the format cannot state.

    Attributes:
        images: number of images.
        ious: list with the IoU of each instance's mask and the mask that its line is read as.
        joined: number of instances of several parts, which are one polygon in the file.
        holes: number of instances with holes, which are part of the polygon in the same way.
        crowds: number of crowds, which are left out.
    """

    images: int
    ious: list
    joined: int
    holes: int
    crowds: int


def write_yolo(dataset: Dataset, folder: str | os.PathLike, split: str = "train", step=None) -> Written:
    """Writes `images/SPLIT`, `labels/SPLIT` and `data.yaml`, to which another split is added.

    Polygons run along the edges of the masks' pixels. Files of JPEG and PNG images are copied where they are upright,
    see `encoded.encoded_image`. Crowds are left out. Samples that cannot be read are left out and noted in
    `dataset.skipped`.

    Args:
        dataset: a `Dataset`.
        folder: str or Path; it is created.
        split: "train", "val" or "test".
        step: function of the number of images done, for a progress bar.

    Returns:
        A `Written`.

    Raises:
        DataError: the folder has images of this split, or is of other classes; or no sample can be read.
        ValueError: the split has another name.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"the split must be train, val or test, not {split!r}")
    folder = pathlib.Path(folder)
    images, labels = (folder / kind / split for kind in ("images", "labels"))
    for place in (images, labels):
        if place.is_dir() and any(place.iterdir()):
            raise DataError(place, "is not empty")
        place.mkdir(parents=True, exist_ok=True)
    log_fields(folder, dataset, "YOLO segmentation")
    _write_yaml(folder / "data.yaml", split, dataset.class_names)
    names: set = set()
    counts = Written(0, [], 0, 0, 0)
    for position in range(len(dataset)):
        sample = read_or_skip(dataset, position)
        if sample is not None:
            name = _name(sample, position, names)
            content, kind = encoded_image(sample)
            (images / f"{name}.{ENDINGS[kind]}").write_bytes(content)
            lines, counts = _lines(sample, counts)
            (labels / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        if step:
            step(position + 1)
    if not counts.images:
        raise DataError(folder, "is not written: no sample of the data set can be read")
    return counts


def _write_yaml(path, split, class_names):
    import yaml

    names = dict(enumerate(class_names))
    found, folders = read_yaml(path) if path.is_file() else (names, {})
    if found != names:
        raise DataError(path, f"has other classes than {', '.join(class_names)}")
    splits = {name: f"images/{name}" for name in (*folders, split)}
    path.write_text(yaml.safe_dump({**splits, "names": names}, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _name(sample, position, names):
    """Name of a sample's files without ending, different from those before."""
    source = sample["source"]
    name = pathlib.PurePath(source).stem if os.path.isfile(source) else f"{position:06d}"
    name = f"{name}_{position}" if name in names else name
    names.add(name)
    return name


def _lines(sample, counts):
    """Lines of a label file, and the counts with those of this sample."""
    size, lines, ious = sample["image"].shape[:2], [], []
    parts_of = [rings(mask) for mask in sample["masks"][~sample["crowd"]]]
    holes = [sum(signed_area(ring) < 0 for ring in parts) for parts in parts_of]
    for label, mask, parts in zip(
        sample["labels"][~sample["crowd"]], sample["masks"][~sample["crowd"]], parts_of, strict=True
    ):
        shares = (joined(parts) / size[::-1]).ravel()
        words = [f"{share:.{DIGITS}g}" for share in shares]
        lines.append(" ".join([str(label - 1), *words]))
        ious.append(_iou(words, mask))
    return lines, Written(
        counts.images + 1,
        counts.ious + ious,
        counts.joined + sum(len(parts) - count > 1 for parts, count in zip(parts_of, holes, strict=True)),
        counts.holes + sum(count > 0 for count in holes),
        counts.crowds + int(sample["crowd"].sum()),
    )


def _iou(words, mask):
    """IoU of a mask and of the one that the words of its line are read as."""
    points = np.array(words, float).reshape(-1, 2) * mask.shape[::-1]
    read = run_lengths([points.ravel().tolist()], mask.shape)
    return float(run_length.iou([read], [run_length.encode(np.asfortranarray(mask, np.uint8))], [0])[0, 0])
