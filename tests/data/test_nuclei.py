import re

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data

IDS = np.zeros((5, 6), np.uint16)
IDS[1:3, 1:4] = 1
IDS[4, 5] = 300  # exceeds eight bits


@pytest.fixture
def compact(tmp_path):
    """One image of 6 x 5 pixels with nuclei 1 and 300 in one file."""
    for name in ("images", "mask_ids"):
        (tmp_path / "stage1_train" / "a" / name).mkdir(parents=True)
    Image.new("RGBA", (6, 5), (1, 2, 3, 255)).save(tmp_path / "stage1_train" / "a" / "images" / "a.png")
    Image.fromarray(IDS).save(tmp_path / "stage1_train" / "a" / "mask_ids" / "a.png")
    (tmp_path / "train.txt").write_text("a\n")
    return tmp_path


@pytest.fixture
def original(compact):
    """The same image with one file per nucleus, which overlap here, and an empty one."""
    folder = compact / "stage1_train" / "a"
    (folder / "mask_ids" / "a.png").unlink()
    (folder / "mask_ids").rmdir()
    (folder / "masks").mkdir()
    second = IDS == 300
    second[2, 3] = True
    for number, mask in enumerate([IDS == 1, second, np.zeros_like(second)]):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{number}.png")
    return compact


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_worked_by_hand(compact, as_path):
    nuclei = data.Nuclei(as_path(compact))
    found = nuclei[0]
    assert found["image"].shape == (5, 6, 3) and found["image"][0, 0].tolist() == [1, 2, 3]
    assert found["boxes"].tolist() == [[1, 1, 4, 3], [5, 4, 6, 5]]
    assert found["masks"].sum((1, 2)).tolist() == [6, 1]
    assert found["labels"].tolist() == [1, 1] and found["image_id"] == "a"
    assert nuclei.class_names == ["nucleus"] and len(nuclei) == 1


def test_original_layout_keeps_overlaps_and_drops_empty_masks(original):
    found = data.Nuclei(original)[0]
    assert found["boxes"].tolist() == [[1, 1, 4, 3], [3, 2, 6, 5]]
    assert found["masks"][:, 2, 3].all() and len(found["masks"]) == 2


def test_image_without_nuclei(original):
    for path in (original / "stage1_train" / "a" / "masks").iterdir():
        path.unlink()
    assert data.Nuclei(original)[0]["masks"].shape == (0, 5, 6)


def test_colour_masks(original):
    path = original / "stage1_train" / "a" / "masks" / "0.png"
    with Image.open(path) as mask:
        colour = mask.convert("RGBA")
    colour.save(path)
    assert data.Nuclei(original)[0]["masks"][0].sum() == 6


def test_missing_folders(tmp_path, compact):
    with pytest.raises(data.DataError, match=re.escape(f"{tmp_path / 'none'}: no such folder")):
        data.Nuclei(tmp_path / "none")
    with pytest.raises(data.DataError, match="has no folder stage2"):
        data.Nuclei(compact, part="stage2")


def test_missing_and_empty_list(compact):
    with pytest.raises(data.DataError, match=r"val\.txt: no such list"):
        data.Nuclei(compact, split="val")
    (compact / "val.txt").write_text("\n")
    with pytest.raises(data.DataError, match="names no image"):
        data.Nuclei(compact, split="val")


def test_every_image_without_a_list(compact):
    (compact / "train.txt").unlink()
    assert data.Nuclei(compact, split="all").names == ["a"]


def test_missing_image_and_masks(compact):
    (compact / "train.txt").write_text("a b")
    with pytest.raises(data.DataError, match=r"b\.png: no such file"):
        data.Nuclei(compact)[1]
    (compact / "stage1_train" / "a" / "mask_ids" / "a.png").unlink()
    with pytest.raises(data.DataError, match=r"a\.png: no such file"):
        data.Nuclei(compact)[0]
    (compact / "stage1_train" / "a" / "mask_ids").rmdir()
    with pytest.raises(data.DataError, match="neither a folder mask_ids nor a folder masks"):
        data.Nuclei(compact)[0]


def test_broken_masks(compact):
    path = compact / "stage1_train" / "a" / "mask_ids" / "a.png"
    Image.fromarray(np.ones((5, 7), np.uint16)).save(path)
    with pytest.raises(data.DataError, match=r"a\.png: the mask has shape \[5, 7\], its image \[5, 6\]"):
        data.Nuclei(compact)[0]
    path.write_bytes(b"nothing")
    with pytest.raises(data.DataError, match=r"a\.png: cannot be read as a mask"):
        data.Nuclei(compact)[0]


def test_real_data(kmr_data):
    folder = kmr_data / "nuclei"
    train, val = (data.Nuclei(folder, split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (534, 50)
    original = data.Nuclei(folder, split="all", part="original_layout_sample")
    # One of the ten has two overlapping pixels, which the compact layout gives to the smaller nucleus.
    name = "15039b3acccc4257a1a442646a89b6e596b5eb4531637e6d8fa1c43203722c99"
    found = original[original.names.index(name)]
    again = data.Nuclei(folder, split="all")
    again = again[again.names.index(name)]
    assert (found["masks"] == again["masks"]).all() and (found["boxes"] == again["boxes"]).all()
