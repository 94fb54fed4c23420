"""YOLO text: what is written is read again, and what the format cannot state is counted."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data


@pytest.fixture
def two(in_memory, sample):
    """An image with a crowd, an object of two parts and one with a hole; and one without objects."""
    first = sample([[1, 2, 9, 8], [4, 4, 40, 30], [10, 10, 20, 20]], labels=[3, 1, 2], image_id=1)
    first["masks"][0, 20:23, 40:45] = True
    first["masks"][1, 10:20, 10:20] = False
    first["crowd"][2] = True
    del first["boxes"]
    return in_memory([first, sample([], seed=2)])


def test_round_trip(two, tmp_path):
    written = data.write_yolo(two, tmp_path, "train")
    assert (written.images, written.ious, written.joined, written.holes, written.crowds) == (2, [1.0, 1.0], 1, 1, 1)
    data.write_yolo(two[1:], tmp_path, "val")
    found, val = data.splits(tmp_path)
    assert found.class_names == ["a", "b", "c"] and (len(found), len(val)) == (2, 1)
    for one, other in zip(two, found, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        for name in ("labels", "masks", "boxes"):
            np.testing.assert_array_equal(one[name][~one["crowd"]], other[name], name)
    lines = (tmp_path / "labels" / "train" / "000000.txt").read_text().splitlines()
    assert lines[0].startswith("2 ") and all(0 <= float(word) <= 1 for word in lines[0].split()[1:])
    assert (tmp_path / "labels" / "train" / "000001.txt").read_text() == ""


def test_files_are_copied_under_different_names(in_memory, sample, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    samples = []
    for name in ("a/x.jpg", "b/x.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(pixels).save(tmp_path / name)
        samples.append(sample([], image=data.read_image(tmp_path / name), source=str(tmp_path / name)))
    data.write_yolo(in_memory(samples), tmp_path / "out")
    found = sorted((tmp_path / "out" / "images" / "train").iterdir())
    assert [path.name for path in found] == ["x.jpg", "x_1.jpg"]
    assert found[0].read_bytes() == (tmp_path / "a" / "x.jpg").read_bytes()


def test_what_cannot_be_written(two, in_memory, tmp_path):
    data.write_yolo(two, tmp_path)
    with pytest.raises(data.DataError, match="is not empty"):
        data.write_yolo(two, tmp_path)
    with pytest.raises(data.DataError, match="has other classes than cat"):
        data.write_yolo(in_memory(two.samples, class_names=["cat"]), tmp_path, "val")
    with pytest.raises(ValueError, match="must be train, val or test"):
        data.write_yolo(two, tmp_path, "all")
    with pytest.raises(data.DataError, match="no sample of the data set can be read"):
        data.write_yolo(in_memory([data.DataError("a", "b")]), tmp_path / "none")


@pytest.mark.parametrize("name", ["coco_tiny", "nuclei", "coco128-seg"])
def test_real_sets(kmr_data, tmp_path, name):
    dataset = data.splits(kmr_data / name)[1][:6]
    written = data.write_yolo(dataset, tmp_path, "val")
    found = data.Yolo(tmp_path / "images" / "val", dataset.class_names)
    assert min(written.ious) == 1.0 and len(found) == 6 and not found.dropped
    by_name = {pathlib.Path(one["source"]).stem: one for one in found}
    for one in dataset:
        other = by_name[pathlib.Path(one["source"]).stem]
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["masks"][~one["crowd"]], other["masks"])
