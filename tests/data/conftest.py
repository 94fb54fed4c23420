"""Data sets in memory and broken files on disk for the tests of `data`."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data


class InMemory(data.Dataset):
    """Samples from a list; an exception in the list is raised when it is read."""

    def __init__(self, samples, class_names=("a", "b", "c")):
        self.samples, self.class_names = samples, list(class_names)

    def __len__(self):
        return len(self.samples)

    def read(self, position):
        if isinstance(self.samples[position], Exception):
            raise self.samples[position]
        return self.samples[position]


def rectangles(boxes, size=(32, 48), labels=None, seed=0, **more):
    """A sample of filled rectangles with whole-pixel boxes on a random image."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    return {
        "image": np.random.default_rng(seed).integers(1, 256, (*size, 3), np.uint8),
        "boxes": boxes,
        "labels": np.ones(len(boxes), np.int32) if labels is None else np.array(labels, np.int32),
        "masks": masks,
        "crowd": np.zeros(len(boxes), bool),
        "image_id": seed,
        "source": f"rectangles {seed}",
        **more,
    }


@pytest.fixture
def in_memory():
    return InMemory


@pytest.fixture
def sample():
    return rectangles


@pytest.fixture
def truncated_jpeg():
    """Bytes of a JPEG of noise that ends after three quarters."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()[: len(stream.getvalue()) * 3 // 4]


@pytest.fixture
def coco_folder(tmp_path):
    """Writes a COCO file of 8 x 10 images with the given annotations; returns (path of the file, folder)."""

    def write(annotations, images=("one.png",), records=None, **changes):
        for name in images:
            Image.new("RGB", (10, 8), (9, 90, 200)).save(tmp_path / name)
        content = {
            "images": records
            or [{"id": i, "file_name": name, "height": 8, "width": 10} for i, name in enumerate(images)],
            "categories": [{"id": 7, "name": "ant"}, {"id": 3, "name": "zebra"}],
            "annotations": [
                {"id": 10 + i, "image_id": 0, "category_id": 3, "iscrowd": 0, **annotation}
                for i, annotation in enumerate(annotations)
            ],
            **changes,
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return path, tmp_path

    return write


@pytest.fixture
def assert_round_trip():
    """Function that writes a data set as a COCO file to a path, and asserts that this file has the same samples."""

    def check(dataset, path):
        keypoints = [field.name for field in dataset.fields]
        again = data.Coco(path, data.write_coco(dataset, path), keypoints=bool(keypoints))
        assert again.class_names == list(dataset.class_names) and len(again) == len(dataset)
        assert again.fields == tuple(dataset.fields)
        for one, other in zip(dataset, again, strict=True):
            for name in ("image", "boxes", "labels", "masks", "crowd", *keypoints):
                np.testing.assert_array_equal(one[name], other[name], err_msg=f"{name} of {one['source']}")
        assert not again.dropped

    return check
