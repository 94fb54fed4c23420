import re

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data


@pytest.fixture
def small(tmp_path):
    """An image of 6 x 5 pixels with instances 1 and 2."""
    for name in ("PNGImages", "PedMasks"):
        (tmp_path / name).mkdir()
    ids = np.zeros((5, 6), np.uint8)
    ids[1:3, 1:4] = 1
    ids[4, 5] = 2
    Image.new("RGB", (6, 5), (1, 2, 3)).save(tmp_path / "PNGImages" / "a.png")
    Image.fromarray(ids).save(tmp_path / "PedMasks" / "a_mask.png")
    (tmp_path / "train.txt").write_text("a\n")
    return tmp_path


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_worked_by_hand(small, as_path):
    dataset = data.PennFudan(as_path(small))
    found = dataset[0]
    assert found["boxes"].tolist() == [[1, 1, 4, 3], [5, 4, 6, 5]]
    assert found["masks"].sum((1, 2)).tolist() == [6, 1]
    assert found["labels"].tolist() == [1, 1] and found["image_id"] == "a"
    assert dataset.class_names == ["person"] and len(dataset) == 1


def test_missing_folder(tmp_path):
    with pytest.raises(data.DataError, match=re.escape(f"{tmp_path / 'none'}: no such folder")):
        data.PennFudan(tmp_path / "none")


def test_folder_of_something_else(tmp_path):
    with pytest.raises(data.DataError, match="has no folder PNGImages"):
        data.PennFudan(tmp_path)


def test_missing_and_empty_list(small):
    with pytest.raises(data.DataError, match=r"val\.txt: no such list"):
        data.PennFudan(small, split="val")
    (small / "val.txt").write_text("\n")
    with pytest.raises(data.DataError, match="names no image"):
        data.PennFudan(small, split="val")


def test_every_image_without_a_list(small):
    (small / "train.txt").unlink()
    assert data.PennFudan(small, split="all").names == ["a"]


def test_missing_image_and_mask(small):
    (small / "train.txt").write_text("a b")
    with pytest.raises(data.DataError, match=r"b\.png: no such file"):
        data.PennFudan(small)[1]
    (small / "PedMasks" / "a_mask.png").unlink()
    with pytest.raises(data.DataError, match=r"a_mask\.png: no such file"):
        data.PennFudan(small)[0]


def test_mask_of_another_size(small):
    Image.fromarray(np.ones((5, 7), np.uint8)).save(small / "PedMasks" / "a_mask.png")
    with pytest.raises(data.DataError, match=r"a_mask\.png: the mask has shape \[5, 7\], its image \[5, 6\]"):
        data.PennFudan(small)[0]


def test_real_data(kmr_data):
    train, val = (data.PennFudan(kmr_data / "PennFudanPed", split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (120, 20)
    assert sum(len(found["labels"]) for found in val) == 48
    text = (kmr_data / "PennFudanPed" / "Annotation" / f"{val.names[0]}.txt").read_text()
    annotated = np.array(re.findall(r"\((\d+), (\d+)\) - \((\d+), (\d+)\)", text), float)
    assert (
        np.abs(val[0]["boxes"] - annotated + [1, 1, 0, 0]).max() <= 3
    )  # the text counts from 1 and includes the last pixel
