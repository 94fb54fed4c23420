"""Folders of images and mask files, generated in each layout; and the nuclei in their original one."""

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data

SIZE = (20, 30)


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 9, np.uint8)).save(path)


def ids(path, boxes, dtype=np.uint8, mode=None, numbers=None):
    values = np.zeros(SIZE, dtype)
    for number, (x1, y1, x2, y2) in zip(numbers or range(1, len(boxes) + 1), boxes, strict=True):
        values[y1:y2, x1:x2] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values, mode)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 255, 768).astype("uint8").tobytes())
    image.save(path)


def single(path, box, value=255):
    ids(path, [box], numbers=[value])


ONE, TWO = (2, 2, 8, 6), (12, 8, 20, 18)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "P"},
        {"dtype": np.uint16},
        {"dtype": np.uint16, "numbers": [300, 40000]},
        {"numbers": [7, 255]},
    ],
)
def test_one_id_mask_per_image(tmp_path, options, assert_round_trip):
    for name in ("a.jpg", "b.png"):
        photo(tmp_path / "images" / name)
    ids(tmp_path / "masks" / "a.png", [ONE, TWO], **options)
    ids(tmp_path / "masks" / "b.png", [], **{**options, "numbers": []})
    found = data.open(tmp_path)
    assert type(found) is data.MaskFolder and found.class_names == ["object"]
    np.testing.assert_array_equal(found[0]["boxes"], [ONE, TWO])
    assert [sample["image_id"] for sample in found] == ["a", "b"] and not len(found[1]["labels"])
    assert_round_trip(found, tmp_path / "out" / "out.json")


def test_one_file_per_object(tmp_path, assert_round_trip):
    photo(tmp_path / "images" / "a.jpg")
    photo(tmp_path / "images" / "b.jpg")
    single(tmp_path / "masks" / "a" / "0.png", ONE)
    single(tmp_path / "masks" / "a" / "1.png", (4, 4, 10, 9), value=1)  # overlaps the first
    single(tmp_path / "masks" / "a" / "2.png", (0, 0, 0, 0))
    (tmp_path / "masks" / "b").mkdir()
    found = data.open(tmp_path)
    np.testing.assert_array_equal(found[0]["boxes"], [ONE, (4, 4, 10, 9)])
    assert found.dropped == {str(tmp_path / "masks" / "a" / "2.png"): "its mask is empty"}
    assert found[1]["masks"].shape == (0, *SIZE)
    assert_round_trip(found, tmp_path / "out" / "out.json")


def test_folders_of_classes(tmp_path, assert_round_trip):
    for name in "abc":
        photo(tmp_path / "images" / f"{name}.jpg")
    ids(tmp_path / "masks" / "pear" / "a.png", [ONE])
    ids(tmp_path / "masks" / "fig" / "a.png", [TWO])
    single(tmp_path / "masks" / "fig" / "b" / "0.png", ONE)
    single(tmp_path / "masks" / "c" / "pear" / "0.png", ONE)
    single(tmp_path / "masks" / "c" / "fig" / "0.png", TWO)
    found = data.open(tmp_path)
    assert found.class_names == ["fig", "pear"]
    labels = [
        sorted((int(label), *map(int, box)) for label, box in zip(s["labels"], s["boxes"], strict=True)) for s in found
    ]
    assert labels == [[(1, *TWO), (2, *ONE)], [(1, *ONE)], [(1, *TWO), (2, *ONE)]]
    assert_round_trip(found, tmp_path / "out" / "out.json")
    chosen = data.MaskFolder(tmp_path / "images", tmp_path / "masks", class_names=["pear", "fig", "nut"])
    assert chosen[1]["labels"].tolist() == [2]
    with pytest.raises(data.DataError, match="has masks of the class 'fig', which is not one of pear"):
        data.MaskFolder(tmp_path / "images", tmp_path / "masks", class_names=["pear"])


def test_splits(tmp_path):
    for part in ("train", "val"):
        photo(tmp_path / "one" / "images" / part / "a.jpg")
        ids(tmp_path / "one" / "masks" / part / "a.png", [ONE])
        photo(tmp_path / "two" / part / "images" / "a.jpg")
        ids(tmp_path / "two" / part / "masks" / "a.png", [ONE])
        photo(tmp_path / "three" / part / "x" / "images" / "x.jpg")
        single(tmp_path / "three" / part / "x" / "masks" / "0.png", ONE)
    for name in ("one", "two", "three"):
        train, val = data.splits(tmp_path / name)
        assert [str(tmp_path / name) in part[0]["source"] for part in (train, val)] == [True, True]
        np.testing.assert_array_equal(train[0]["boxes"], [ONE])
        assert "train" in train[0]["source"] and "val" in val[0]["source"]


def test_what_has_no_partner_is_counted(tmp_path, caplog):
    for name in "ab":
        photo(tmp_path / "images" / f"{name}.jpg")
    for name in "bcd":
        ids(tmp_path / "masks" / f"{name}.png", [ONE])
    found = data.open(tmp_path)
    assert [sample["image_id"] for sample in found] == ["b"]
    assert "1 images have no masks (a)" in caplog.text and "2 masks have no image (c)" in caplog.text


def test_foreground_instead_of_ids_is_named(tmp_path, caplog):
    for name in "ab":
        photo(tmp_path / "images" / f"{name}.jpg")
        ids(tmp_path / "masks" / f"{name}.png", [ONE, TWO], numbers=[255, 255])
    found = data.open(tmp_path)
    assert [len(sample["labels"]) for sample in found] == [1, 1]
    assert caplog.text.count("has the id 255 only: is it foreground, not one id per object?") == 1
    without = data.MaskFolder(tmp_path / "images", tmp_path / "masks", void=255)
    assert not len(without[0]["labels"])


def test_faults_are_one_line(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    photo(images / "a.jpg")
    with pytest.raises(data.DataError, match="masks: no such folder"):
        data.MaskFolder(images, masks)
    ids(masks / "a.png", [ONE])
    Image.new("L", (9, 9)).save(masks / "a.png")
    with pytest.raises(data.DataError, match=r"a\.png: the mask has shape \[9, 9\], its image \[20, 30\]"):
        data.MaskFolder(images, masks)[0]
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (*SIZE, 3), np.uint8)).save(masks / "a.png")
    with pytest.raises(data.DataError, match="it has colours, not one id per pixel"):
        data.MaskFolder(images, masks)[0]
    (masks / "a.png").write_bytes((masks / "a.png").read_bytes()[:60])
    with pytest.raises(data.DataError, match=r"a\.png: cannot be read as a mask"):
        data.MaskFolder(images, masks)[0]
    (masks / "a.png").rename(masks / "a.jpg")
    with pytest.raises(data.DataError, match="has no image with a mask of the same name"):
        data.MaskFolder(images, masks)
    photo(images / "a.png")
    with pytest.raises(data.DataError, match=r"has two images of the name a: a\.jpg, a\.png"):
        data.MaskFolder(images, masks)
    photo(tmp_path / "each" / "x" / "images" / "x.png")
    photo(tmp_path / "each" / "x" / "images" / "y.png")
    (tmp_path / "each" / "x" / "masks").mkdir()
    with pytest.raises(data.DataError, match="images: has 2 images, not one"):
        data.open(tmp_path / "each")


def test_the_original_layout_of_the_nuclei(kmr_data, tmp_path, assert_round_trip):
    found = data.open(kmr_data / "nuclei" / "original_layout_sample")
    same = data.Nuclei(kmr_data / "nuclei", "all", part="original_layout_sample")
    assert type(found) is data.MaskFolder and len(found) == len(same) == 10
    for one, other in zip(found[:4], same[:4], strict=True):
        assert one["image_id"] == other["image_id"]
        for name in ("image", "boxes", "masks"):
            np.testing.assert_array_equal(one[name], other[name])
    assert_round_trip(found[:3], tmp_path / "out.json")
