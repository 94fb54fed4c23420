"""Image files of every mode, depth and number of channels: each has one result or one line."""

import logging

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data import array_file

RNG = np.random.default_rng(0)
TYPES = [data.ImageType(channels, dtype) for channels in (1, 2, 3, 4, 8) for dtype in ("uint8", "uint16")]


def noise(*shape, dtype="uint16"):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.fixture
def saved(tmp_path):
    """Writes a PIL image, or an array as `.tif` (tifffile), `.png` (imagecodecs) or `.npy`; returns the path."""

    def save(image, name, **options):
        path = tmp_path / name
        if isinstance(image, Image.Image):
            image.save(path, **options)
        elif name.endswith(".npy"):
            np.save(path, image)
        elif name.endswith(".png"):
            path.write_bytes(imagecodecs.png_encode(image))
        else:
            tifffile.imwrite(path, image, **options)
        return path

    return save


def read(path, channels, dtype="uint16"):
    found = data.read_image(path, channels=channels, dtype=dtype)
    assert found.dtype == dtype and found.shape[2] == channels
    return found


def refused(path, channels, dtype="uint16"):
    with pytest.raises(data.DataError) as caught:
        data.read_image(path, channels=channels, dtype=dtype)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I"])
@pytest.mark.parametrize("image_type", TYPES, ids=str)
def test_every_mode_has_one_result_or_one_line(saved, mode, image_type):
    """Grey and colour are read as one and as three channels, and LA and RGBA as stored as well."""
    pixels = Image.fromarray(noise(5, 4, 3, dtype="uint8"))
    image = pixels.convert("L").convert(mode) if mode in ("I;16", "I") else pixels.convert(mode)
    path = saved(image, "a.tif" if mode in ("CMYK", "YCbCr", "LAB", "I", "LA") else "a.png")
    alike = {1, 3} | ({2} if mode == "LA" else set()) | ({4} if mode == "RGBA" else set())
    if image_type.channels in alike:
        assert image_type.fits(data.read_image(path, channels=image_type.channels, dtype=image_type.dtype))
    else:
        assert "channels, not" in refused(path, image_type.channels, image_type.dtype)


def test_sixteen_bit_grey_keeps_its_bits(saved):
    grey = noise(3, 4)
    for path in (saved(Image.fromarray(grey), "a.png"), saved(grey, "a.tif"), saved(grey, "a.npy")):
        np.testing.assert_array_equal(read(path, 1)[..., 0], grey)
        np.testing.assert_array_equal(read(path, 3), np.repeat(grey[..., None], 3, axis=2))


def test_alpha_is_a_channel_or_lies_over_white(saved):
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
    path = saved(Image.fromarray(pixels), "a.png")
    np.testing.assert_array_equal(read(path, 4, "uint8"), pixels)
    assert read(path, 3, "uint8").tolist() == [[[200, 0, 0], [255, 255, 255]]]
    assert read(path, 1, "uint8").tolist() == [[[60], [255]]]  # 0.299 * 200
    grey = saved(Image.fromarray(np.array([[[9, 255], [9, 0]]], np.uint8)), "b.png")
    assert read(grey, 2, "uint8").tolist() == [[[9, 255], [9, 0]]] and read(grey, 1, "uint8").tolist() == [[[9], [255]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_colour_keeps_its_bits(saved, name):
    colours, options = noise(6, 5, 3), {} if name == "a.png" else {"photometric": "rgb"}
    path = saved(colours, name, **options)
    np.testing.assert_array_equal(read(path, 3), colours)
    np.testing.assert_array_equal(read(path, 3, "uint8"), colours >> 8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_alpha(saved, name):
    colours = noise(6, 5, 4)
    colours[0, 0], colours[0, 1] = [1, 2, 3, 65535], [1, 2, 3, 0]
    path = saved(colours, name, **({} if name == "a.png" else {"photometric": "rgb", "extrasamples": ["unassalpha"]}))
    np.testing.assert_array_equal(read(path, 4), colours)
    assert read(path, 3)[0, :2].tolist() == [[1, 2, 3], [65535] * 3]


@pytest.mark.parametrize("channels", [2, 4, 5, 8])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("planes", "options"),
    [
        (False, {"photometric": "minisblack", "planarconfig": "contig"}),
        (True, {"photometric": "minisblack", "planarconfig": "separate"}),
        (True, {"photometric": "minisblack"}),
        (True, {"imagej": True, "metadata": {"axes": "CYX"}}),
        (True, {"ome": True, "metadata": {"axes": "CYX"}}),
        (False, {"photometric": "minisblack", "planarconfig": "contig", "compression": "lzw"}),
    ],
    ids=["samples", "planes", "pages", "imagej", "ome", "lzw"],
)
def test_tiff_of_many_channels(saved, channels, dtype, planes, options):
    pixels = noise(12, 13, channels, dtype=dtype)
    path = saved(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)) if planes else pixels, "a.tif", **options)
    np.testing.assert_array_equal(read(path, channels, dtype), pixels)


def test_colour_with_further_samples(saved):
    pixels = noise(6, 5, 5, dtype="uint8")
    path = saved(pixels, "a.tif", photometric="rgb", planarconfig="contig")
    np.testing.assert_array_equal(read(path, 5, "uint8"), pixels)
    np.testing.assert_array_equal(read(path, 3, "uint8"), pixels[..., :3])
    assert "has 3 channels, not 4" in refused(path, 4, "uint8")


def test_pages_are_channels_only_if_they_are_as_many(saved):
    pages = noise(4, 6, 5, dtype="uint8")
    path = saved(pages, "a.tif", photometric="minisblack")
    np.testing.assert_array_equal(read(path, 4, "uint8"), np.moveaxis(pages, 0, 2))
    np.testing.assert_array_equal(read(path, 1, "uint8")[..., 0], pages[0])
    np.testing.assert_array_equal(read(path, 3, "uint8"), np.repeat(pages[0][..., None], 3, axis=2))
    assert "has 1 channels, not 2" in refused(path, 2)


def test_pages_of_unequal_sizes(saved):
    first, second = (Image.fromarray(noise(*size, dtype="uint8")) for size in ((4, 4), (4, 5)))
    path = saved(first, "a.tif", save_all=True, append_images=[second])
    assert "page 2 is L of 5 x 4 pixels, unlike page 1" in refused(path, 2)


@pytest.mark.parametrize(("name", "kind"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.png", "PNG")])
def test_animations_give_their_first_frame(saved, name, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    path = saved(frames[0], name, format=kind, save_all=True, append_images=frames[1:], lossless=True)
    assert np.abs(read(path, 3, "uint8").astype(int) - [255, 0, 0]).max() <= 4


def test_arrays_of_numpy(saved):
    pixels = noise(4, 5, 6)
    np.testing.assert_array_equal(read(saved(pixels, "a.npy"), 6), pixels)
    np.testing.assert_array_equal(read(saved(pixels.astype(">u2"), "b.npy"), 6), pixels)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2, 3), np.float32), "the image is float32, not uint8 or uint16"),
        (np.zeros((2, 2, 9), np.uint8), "9 channels, and 8 are the most"),
        (np.zeros((2, 2, 2, 2), np.uint8), "not [height, width, channels]"),
        (np.zeros((0, 2, 3), np.uint8), "no pixels"),
        (np.array([[{}]], object), "cannot be read as an image ("),
    ],
)
def test_hostile_arrays(saved, array, reason):
    assert reason in refused(saved(array, "a.npy"), 3)


def test_an_array_that_claims_more_than_its_file_holds(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": (9000, 9000, 8)})
    assert "cannot be read as an image (" in refused(tmp_path / "a.npy", 8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.tif", "b.tif", "c.png", "d.npy"])
def test_files_that_end_too_early(saved, caplog, name, part):
    caplog.set_level(logging.CRITICAL)
    pixels = noise(30, 40, 5 if name[0] in "ad" else 3)
    path = saved(pixels, name, **({"compression": "zlib"} if name.endswith("tif") else {}))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    assert refused(path, pixels.shape[2])


def test_limits_hold_for_tiff_before_it_is_decoded(saved, monkeypatch):
    path = saved(noise(10, 20, 5), "a.tif", photometric="minisblack", planarconfig="contig")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 199)
    assert "20 x 10 pixels, more than the 199 of PIL.Image.MAX_IMAGE_PIXELS" in refused(path, 5)
    monkeypatch.undo()
    deep = saved(noise(3, 4, 5, 6), "b.tif", photometric="minisblack")
    assert "has 1 channels" in refused(deep, 5)
    assert "9 channels" in refused(saved(noise(6, 7, 9), "c.tif", photometric="minisblack", planarconfig="contig"), 8)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_missing_library_is_named(saved, name, monkeypatch):
    def missing(name):
        raise ImportError(name)

    path = saved(noise(4, 5, 3), name, **({"photometric": "rgb"} if name == "a.tif" else {}))
    monkeypatch.setattr(array_file.importlib, "import_module", missing)
    library = "tifffile" if name == "a.tif" else "imagecodecs"
    assert f'it needs {library}: pip install "keras3-maskrcnn[channels]"' in refused(path, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [3, 5])
def test_orientation_of_tiff(saved, orientation, channels):
    """Files that tifffile reads are turned as those that Pillow reads."""
    pixels = noise(2, 3, channels, dtype="uint8")
    tag = [(274, "H", 1, orientation, True)]
    path = saved(pixels, "a.tif", photometric="rgb", planarconfig="contig", extratags=tag)
    expected = read(saved(pixels[..., :3], "b.tif", photometric="rgb", extratags=tag), 3, "uint8")
    np.testing.assert_array_equal(read(path, channels, "uint8")[..., :3], expected)
    assert expected.shape[:2] == ((3, 2) if orientation >= 5 else (2, 3))
