"""Images with an EXIF orientation: annotations decide whether the turned or the stored pixels are used."""

import json
import logging

import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_maskrcnn import data
from keras_maskrcnn.data import image_file

STORED = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def save(path, orientation, pixels=STORED):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def coco(folder, size, name="a.png"):
    """A COCO data set of one image whose record states a size (H, W), with the pixel (1, 2) as object."""
    mask = np.zeros(size, np.uint8)
    mask[1, 2] = 1
    counts = [2 * size[0] + 1, 1, size[0] * size[1] - 2 * size[0] - 2]
    content = {
        "images": [{"id": 0, "file_name": name, "height": size[0], "width": size[1]}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": {"size": list(size), "counts": counts}}
        ],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return data.Coco(folder / "a.json", folder)


def penn_fudan(folder, size):
    for name in ("PNGImages", "PedMasks"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "a.png").rename(folder / "PNGImages" / "a.png")
    Image.fromarray(np.ones(size, np.uint8)).save(folder / "PedMasks" / "a_mask.png")
    return data.PennFudan(folder, "all")


def nuclei(folder, size, layout="mask_ids"):
    for name in ("images", layout):
        (folder / "stage1_train" / "a" / name).mkdir(parents=True, exist_ok=True)
    (folder / "a.png").rename(folder / "stage1_train" / "a" / "images" / "a.png")
    Image.fromarray(np.ones(size, np.uint8)).save(folder / "stage1_train" / "a" / layout / "a.png")
    return data.Nuclei(folder, "all")


def nuclei_in_files(folder, size):
    return nuclei(folder, size, "masks")


READERS = pytest.mark.parametrize("reader", [coco, penn_fudan, nuclei, nuclei_in_files])


@READERS
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_annotation_decides(tmp_path, reader, orientation, caplog):
    with caplog.at_level(logging.WARNING):
        save(tmp_path / "a.png", orientation)
        found = reader(tmp_path, (9, 6))[0]
        with Image.open(found["source"]) as image:
            turned = np.array(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(found["image"], turned)
        assert found["masks"].shape == (1, 9, 6)
        save(tmp_path / "a.png", orientation)
        found = reader(tmp_path, (6, 9))[0]
        np.testing.assert_array_equal(found["image"], STORED)
        assert found["masks"].shape == (1, 6, 9)
    assert not caplog.records


@READERS
@pytest.mark.parametrize(
    ("orientation", "pixels"), [(2, STORED), (3, STORED), (4, STORED), (6, np.ascontiguousarray(STORED[:, :6]))]
)
def test_an_annotation_that_fits_both_is_of_the_stored_pixels_and_this_is_logged_once(
    tmp_path, reader, orientation, pixels, caplog
):
    save(tmp_path / "a.png", orientation, pixels)
    dataset = reader(tmp_path, pixels.shape[:2])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(dataset[0]["image"], pixels)
    (record,) = caplog.records
    assert "a.png has the EXIF orientation" in record.getMessage() and "as stored" in record.getMessage()


@READERS
def test_an_annotation_that_fits_neither(tmp_path, reader):
    save(tmp_path / "a.png", 6)
    with pytest.raises(data.DataError, match=r"is 9 x 6 pixels, but 8 x 6|shape \[6, 8\], its image \[6, 9\]"):
        reader(tmp_path, (6, 8))[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_does(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(STORED).save(tmp_path / "a", kind, exif=exif)
    with Image.open(tmp_path / "a") as image:
        np.testing.assert_array_equal(data.read_image(tmp_path / "a"), np.array(ImageOps.exif_transpose(image)))


def test_damaged_exif_is_no_orientation(tmp_path):
    Image.fromarray(STORED).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    np.testing.assert_array_equal(data.read_image(tmp_path / "a.png"), STORED)


def test_sizes_of_a_stored_image(tmp_path):
    save(tmp_path / "a.png", 6)
    assert image_file.read_stored(tmp_path / "a.png").sizes == [(6, 9), (9, 6)]
