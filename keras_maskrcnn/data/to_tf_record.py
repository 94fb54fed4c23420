"""Writes any data set as TFRecord files in the schema of the TensorFlow Object Detection API, see `tf_record`."""

import hashlib
import io
import pathlib

import numpy as np
from PIL import Image

from keras_maskrcnn.data import record_index, tf_record_file
from keras_maskrcnn.data.cache import read_or_skip
from keras_maskrcnn.data.encoded import encoded_image
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.sample import log_fields
from keras_maskrcnn.data.tf_messages import example_of, read_label_map, write_label_map
from keras_maskrcnn.data.tf_record import LABEL_MAP, PIXELS, SIDES
from keras_maskrcnn.data.urls import as_path

PER_SHARD = 1000  # images, where the number of shards is not given


def write_tfrecord(dataset, path, shards=None, step=None):
    """Writes a data set as `PATH-00000-of-00010` and so on, with the label map `label_map.pbtxt` and `PATH.index`.

    `TfRecord(path)` has the same images, boxes, labels, masks and crowds bit for bit, in the same order. The bytes of
    JPEG and PNG files are kept where they are upright, see `encoded.encoded_image`. Boxes are stored normalised, as the
    schema says, and once more in pixels, because float32 shares of a side do not give all float32 pixels. Samples that
    cannot be read are left out and noted in `dataset.skipped`. The index makes opening fast, see `record_index`.

    Args:
        dataset: a `Dataset`.
        path: str, Path or URL without the number of the shard, such as `records/train.tfrecord`; its folder is created.
        shards: number of files; None for one per thousand images.
        step: function of the number of images done, for a progress bar.

    Returns:
        List of the paths of the shards.

    Raises:
        DataError: the folder holds the label map of other classes, or other shards of this name; or no sample can be
            read.
        ValueError: `shards` is not a positive number, or more than there are images.
    """
    path, total = as_path(path), len(dataset)
    shards = -(-total // PER_SHARD) if shards is None else shards
    if not 1 <= shards <= max(total, 1):
        raise ValueError(f"{shards} shards for {total} images")
    files = [path.with_name(f"{path.name}-{number:05d}-of-{shards:05d}") for number in range(shards)]
    path.parent.mkdir(parents=True, exist_ok=True)
    log_fields(path, dataset, "TFRecord")
    _check_folder(path, files, dict(enumerate(dataset.class_names, 1)))
    record_index.path_of(path).unlink(missing_ok=True)  # of other files of these names
    lengths = {}
    for number, file in enumerate(files):
        positions = range(number * total // shards, (number + 1) * total // shards)
        lengths[file.name] = _write_file(file, dataset, positions, step)
    if not any(lengths.values()):
        for file in files:
            file.unlink()
        raise DataError(path, "is not written: no sample of the data set can be read")
    record_index.write(record_index.path_of(path), lengths)
    return files


def _write_file(file, dataset, positions, step):
    """Writes samples of a data set as one file; returns the lengths of the records."""
    lengths = []
    with tf_record_file.writer(file) as append:
        for position in positions:
            sample = read_or_skip(dataset, position)
            if sample is not None:
                content = _example(sample, dataset.class_names)
                append(content)
                lengths.append(len(content))
            if step:
                step(position + 1)
    return lengths


def _check_folder(path, files, names):
    """Writes the label map; other classes, and shards that would be read together with the new ones, are errors."""
    others = sorted(set(path.parent.glob(f"{path.name}-?????-of-?????")).difference(files))
    if others:
        raise DataError(others[0], f"is a shard of another number than {len(files)}: delete it")
    label_map = path.with_name(LABEL_MAP)
    if not label_map.is_file():
        write_label_map(label_map, names)
    elif read_label_map(label_map) != names:
        raise DataError(label_map, f"has other classes than {', '.join(names.values())}")


def _example(sample, class_names):
    """Features of a sample, serialised."""
    encoded, kind = encoded_image(sample)
    height, width = sample["image"].shape[:2]
    name = pathlib.PurePath(sample["source"]).name.encode("utf-8", "surrogateescape")
    labels = sample["labels"].tolist()
    sides = (sample["boxes"].astype(np.float64) / [width, height, width, height]).T.tolist()
    return example_of(
        {
            "image/height": ("int64_list", [height]),
            "image/width": ("int64_list", [width]),
            "image/filename": ("bytes_list", [name]),
            "image/source_id": ("bytes_list", [str(sample["image_id"]).encode("utf-8", "surrogateescape")]),
            "image/key/sha256": ("bytes_list", [hashlib.sha256(encoded).hexdigest().encode()]),
            "image/encoded": ("bytes_list", [encoded]),
            "image/format": ("bytes_list", [kind.lower().encode()]),
            **{f"image/object/bbox/{side}": ("float_list", values) for side, values in zip(SIDES, sides, strict=True)},
            PIXELS: ("float_list", sample["boxes"].ravel().tolist()),
            "image/object/class/label": ("int64_list", labels),
            "image/object/class/text": ("bytes_list", [class_names[label - 1].encode() for label in labels]),
            "image/object/is_crowd": ("int64_list", sample["crowd"].astype(int).tolist()),
            "image/object/area": ("float_list", [float(mask.sum()) for mask in sample["masks"]]),
            "image/object/mask": ("bytes_list", [_png(mask) for mask in sample["masks"]]),
        }
    )


def _png(mask):
    """A bool `[H, W]` mask as a PNG file of 0 and 1."""
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
