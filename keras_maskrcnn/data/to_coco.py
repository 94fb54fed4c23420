"""Writes any data set of image files as a COCO file."""

import json
import os
import pathlib

import numpy as np

from keras_maskrcnn.data import coco_keypoints
from keras_maskrcnn.data.cache import read_or_skip, skip
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import read_stored
from keras_maskrcnn.data.run_lengths import encode_mask
from keras_maskrcnn.data.sample import Dataset, log_fields


def write_coco(dataset: Dataset, path: str | os.PathLike, step=None) -> pathlib.Path:
    """Writes the annotations of a data set; the images stay where they are.

    Masks are run lengths, so that `Coco(path, folder)` has the same images, boxes, labels, masks and crowds, and with
    `keypoints=True` the same keypoints, if these have names; other fields are left out, which is logged. Ids of images
    are kept where all are whole numbers, else counted from 1. Samples that cannot be read are left out and noted in
    `dataset.skipped`; so are photos whose EXIF orientation COCO files cannot state.

    Args:
        dataset: `Dataset` whose samples come from image files.
        path: str or Path of the JSON file; its folder is created.
        step: function of the number of images done, for a progress bar.

    Returns:
        Path of the folder that the `file_name` of the images are relative to.

    Raises:
        DataError: the samples do not come from image files, or none can be read.
    """
    samples, annotations = [], []
    keypoints = coco_keypoints.named(dataset.fields)
    log_fields(path, dataset, "COCO", keypoints)
    for position in range(len(dataset)):
        sample = read_or_skip(dataset, position)
        if sample is not None and _is_usable(dataset, sample):
            samples.append((sample["image_id"], sample["source"], sample["image"].shape[:2]))
            annotations.append(_annotations(sample, keypoints))
        if step:
            step(position + 1)
    if not samples:
        raise DataError(path, "is not written: no sample of the data set can be read")
    folder = pathlib.Path(os.path.commonpath([os.path.dirname(os.path.abspath(source)) for _, source, _ in samples]))
    keep = all(isinstance(number, int | np.integer) for number, _, _ in samples)
    content: dict = {"images": [], "annotations": [], "categories": []}
    for count, ((number, source, (height, width)), of_image) in enumerate(zip(samples, annotations, strict=True), 1):
        image_id = int(number) if keep else count
        name = pathlib.Path(os.path.abspath(source)).relative_to(folder).as_posix()
        content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        first = len(content["annotations"]) + 1
        content["annotations"] += [{"id": first + i, "image_id": image_id, **a} for i, a in enumerate(of_image)]
    content["categories"] = [{"id": label, "name": name} for label, name in enumerate(dataset.class_names, 1)]
    for field in keypoints:
        content["categories"] = [{**c, field.name: list(field.names)} for c in content["categories"]]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return folder


def _is_usable(dataset, sample):
    """Whether `Coco` would read the same image; a DataError if the sample is of no file."""
    source = sample["source"]
    if not os.path.isfile(source):
        raise DataError(source, "is no image file, and a COCO file lists image files")
    stored = read_stored(source, dataset.image_type)
    if stored.orientation > 1 and not np.array_equal(stored.fitted(sample["image"].shape[:2], source), sample["image"]):
        skip(dataset, DataError(source, f"its EXIF orientation {stored.orientation} cannot be stated in a COCO file"))
        return False
    return True


def _annotations(sample, keypoints):
    rows = zip(sample["boxes"].tolist(), sample["labels"].tolist(), sample["masks"], sample["crowd"], strict=True)
    found = [
        {
            "category_id": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(mask.sum()),
            "iscrowd": int(crowd),
            "segmentation": encode_mask(mask),
        }
        for (x1, y1, x2, y2), label, mask, crowd in rows
    ]
    for field in keypoints:
        found = [
            {**one, **points} for one, points in zip(found, coco_keypoints.records(sample[field.name]), strict=True)
        ]
    return found
