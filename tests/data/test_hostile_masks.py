"""Lists and mask files of Penn-Fudan and the nuclei with faults."""

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data


@pytest.fixture
def street(tmp_path):
    """A street of 6 x 5 pixels in Penn-Fudan's layout; the fixture is a function that writes the mask."""
    for name in ("PNGImages", "PedMasks"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (6, 5)).save(tmp_path / "PNGImages" / "a.png")
    (tmp_path / "train.txt").write_text("a\n")

    def write(mask):
        Image.fromarray(mask).save(tmp_path / "PedMasks" / "a_mask.png")
        return data.PennFudan(tmp_path)

    return write


def test_ids_in_colour_are_refused_but_grey_in_three_channels_is_read(street):
    mask = np.zeros((5, 6, 3), np.uint8)
    mask[1:3, 1:4], mask[4, 5] = 1, 2
    assert street(mask)[0]["masks"].sum((1, 2)).tolist() == [6, 1]
    mask[1:3, 1:4], mask[4, 5] = (255, 0, 0), (76, 76, 76)  # the same grey
    with pytest.raises(data.DataError, match=r"a_mask\.png: cannot be read as a mask \(it has colours, not one id"):
        street(mask)[0]


def test_a_list_in_another_encoding(street, tmp_path):
    (tmp_path / "train.txt").write_bytes("straße\n".encode("latin-1"))
    with pytest.raises(data.DataError, match=r"train\.txt: cannot be read \(.*decode byte 0xdf"):
        street(np.ones((5, 6), np.uint8))
