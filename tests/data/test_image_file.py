import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data


@pytest.fixture
def saved(tmp_path):
    def save(image, name="a.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def test_grey_becomes_three_equal_channels(saved):
    image = data.read_image(saved(Image.fromarray(np.array([[0, 7, 255]], np.uint8))))
    assert image.tolist() == [[[0] * 3, [7] * 3, [255] * 3]]
    assert image.dtype == np.uint8


def test_sixteen_bits_are_scaled_not_cut_off(saved):
    image = data.read_image(saved(Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16))))
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_lies_over_white(saved):
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (200, 0, 0, 0))
    assert data.read_image(saved(image)).tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_opaque_alpha_changes_nothing(saved):
    assert data.read_image(saved(Image.new("RGBA", (1, 1), (200, 1, 2, 255)))).tolist() == [[[200, 1, 2]]]


def test_palette_with_a_transparent_colour(saved):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert data.read_image(saved(image, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]


def test_cmyk_and_black_and_white(saved):
    assert data.read_image(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "a.jpg")).min() >= 254
    assert data.read_image(saved(Image.new("1", (1, 1), 1))).tolist() == [[[255] * 3]]


def test_orientation_is_applied_on_request(saved):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.new("RGB", (4, 2)), "a.jpg", exif=exif)
    assert data.read_image(path).shape == (4, 2, 3)
    assert data.read_image(str(path), turn=False).shape == (2, 4, 3)


def test_floats_are_rejected(saved):
    with pytest.raises(data.DataError, match="floating-point"):
        data.read_image(saved(Image.fromarray(np.ones((2, 2), np.float32)), "a.tiff"))


def test_invalid_files_give_a_one_line_error(tmp_path, truncated_jpeg):
    contents = {"empty.jpg": b"", "text.png": b"hello", "cut.jpg": truncated_jpeg}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in [*contents, "missing.jpg"]:
        with pytest.raises(data.DataError, match=name) as caught:
            data.read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_real_photos(kmr_data):
    photos = kmr_data / "photos"
    images = {path.name: data.read_image(path) for path in photos.iterdir() if path.suffix in (".png", ".jpg")}
    assert len(images) == 8
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images.values())
    np.testing.assert_array_equal(images["coins_16bit.png"], images["coins.png"])
    turned, upright = images["chelsea_exif_orientation6.jpg"], images["chelsea.png"]
    assert turned.shape == upright.shape
    assert np.abs(turned.astype(int) - upright).mean() < 5
    assert images["logo.png"][0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("name", "stored"), [("a.jpg", "a.JPG"), ("IMG_1.JPG", "img_1.jpg"), ("b.png", "B.PNG")])
def test_a_file_whose_name_differs_in_case_is_named(tmp_path, name, stored):
    (tmp_path / stored).write_bytes(b"")
    with pytest.raises(data.DataError, match=f"{name}: no such file, but {stored}: rename one$"):
        data.read_image(tmp_path / name)
    with pytest.raises(data.DataError, match=r"c\.png: no such file$"):
        data.read_image(tmp_path / "c.png")
