"""Image and HDF5 files that are small on disk and large in memory, and formats that start other programs."""

import struct
import zlib

import h5py
import numpy as np
import pytest
import tifffile
from PIL import EpsImagePlugin, Image

from keras_maskrcnn import data
from keras_maskrcnn.data import cis680, sample


def rejection(function, *arguments):
    """The reason in the DataError of a call, after a check that the message is one line."""
    with pytest.raises(data.DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def png(width, height):
    """A PNG of 1-bit zeros, without taking memory for its pixels."""
    rows = zlib.compressobj()
    row = bytes(1 + -(-width // 8))
    pixels = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), b"IDAT": pixels, b"IEND": b""}
    parts = (struct.pack(">I", len(part)) + kind + part for kind, part in chunks.items())
    ends = (struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(b"".join, zip(parts, ends, strict=True)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    path.write_bytes(png(13300, 13300))
    assert path.stat().st_size < 100_000
    assert "has 13300 x 13300 pixels, more than the 89478485 of PIL.Image.MAX_IMAGE_PIXELS" in rejection(
        data.read_image, path
    )
    path.write_bytes(png(20, 10))
    assert data.read_image(path).shape == (10, 20, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 199)
    assert "has 20 x 10 pixels, more than the 199" in rejection(data.read_image, path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert data.read_image(path).shape == (10, 20, 3)


@pytest.mark.parametrize("channels", [3, 5])
def test_a_small_image_in_a_large_tile(tmp_path, monkeypatch, channels):
    path = tmp_path / "photo.tif"
    options = {"tile": (1040, 1040), "compression": "zlib", "photometric": "rgb", "planarconfig": "contig"}
    tifffile.imwrite(path, np.zeros((16, 16, channels), np.uint8), **options)
    assert path.stat().st_size < 50_000
    assert data.read_image(path, channels=channels).shape == (16, 16, channels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    assert "has 1040 x 1040 pixels, more than the 1000000" in rejection(data.read_image, path, True, channels)


def test_a_format_that_starts_a_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **_: started.append(arguments))
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.eps")
    (tmp_path / "photo.eps").rename(tmp_path / "photo.png")
    assert "cannot be read as an image (" in rejection(data.read_image, tmp_path / "photo.png")
    assert not started


@pytest.mark.parametrize("ending", ["bmp", "gif", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp"])
def test_formats_that_are_read(tmp_path, ending):
    Image.new("RGB", (4, 5), (255, 255, 255)).save(tmp_path / f"a.{ending}")
    assert data.read_image(tmp_path / f"a.{ending}").shape == (5, 4, 3)


def test_a_jpeg_of_several_images(tmp_path):
    Image.new("RGB", (4, 5)).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (4, 5))])
    assert data.read_image(tmp_path / "a.jpg").shape == (5, 4, 3)


@pytest.fixture
def many_ids(tmp_path):
    """A folder in the compact layout of the nuclei with 65,535 ids in an image of 256 x 256 pixels."""
    folder = tmp_path / "stage1_train" / "a"
    (folder / "images").mkdir(parents=True)
    (folder / "mask_ids").mkdir()
    Image.new("RGB", (256, 256)).save(folder / "images" / "a.png")
    Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)).save(folder / "mask_ids" / "a.png")
    return tmp_path


def test_masks_that_take_too_much_memory(many_ids, monkeypatch):
    reason = rejection(data.Nuclei(many_ids, "all").__getitem__, 0)
    assert (
        reason
        == "its 65535 masks of 256 x 256 pixels take more than keras_maskrcnn.data.sample.MAX_MASK_BYTES = 2147483648"
    )
    folder = many_ids / "stage1_train" / "a"
    (folder / "mask_ids" / "a.png").rename(folder / "a.png")
    (folder / "mask_ids").rmdir()
    (folder / "masks").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("L", (256, 256), 1).save(folder / "masks" / name)
    assert len(data.Nuclei(many_ids, "all")[0]["masks"]) == 2
    monkeypatch.setattr(sample, "MAX_MASK_BYTES", 2 * 256**2 - 1)
    assert "its 2 masks of 256 x 256 pixels" in rejection(data.Nuclei(many_ids, "all").__getitem__, 0)


def test_coco_masks_that_take_too_much_memory(coco_folder, monkeypatch):
    square = {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}
    coco = data.Coco(*coco_folder([square, square]))
    assert len(coco[0]["masks"]) == 2
    monkeypatch.setattr(sample, "MAX_MASK_BYTES", 159)
    assert "its 2 masks of 10 x 8 pixels take more than keras_maskrcnn.data.sample.MAX_MASK_BYTES = 159" in rejection(
        coco.__getitem__, 0
    )


def course_files(folder, images, masks):
    """The files of CIS 680 for one image and one instance; both arguments create the dataset in an open file."""
    for kind, create in (("images", images), ("masks", masks)):
        with h5py.File(folder / cis680.FILES[kind], "w") as file:
            create(file)
    for kind, values in (("labels", [1]), ("boxes", [[0, 0, 1, 1]])):
        entries = np.empty(1, object)
        entries[0] = np.array(values, np.float32)
        np.save(folder / cis680.FILES[kind], entries, allow_pickle=True)


def unallocated(*shape, **options):
    return lambda file: file.create_dataset("data", shape, np.uint8, **options)


def test_hdf5_arrays_that_take_too_much_memory(tmp_path, monkeypatch):
    course_files(tmp_path, unallocated(1, 3, 30000, 30000), unallocated(1, 30000, 30000))
    assert (
        "its parts of 2700000000 bytes are larger than keras_maskrcnn.data.cis680.MAX_READ_BYTES = 1073741824"
        in rejection(data.Cis680, tmp_path)
    )
    course_files(tmp_path, unallocated(1, 3, 8, 8, chunks=(1, 3, 8, 8)), unallocated(1, 8, 8))
    assert data.Cis680(tmp_path)[0]["image"].shape == (8, 8, 3)
    monkeypatch.setattr(cis680, "MAX_READ_BYTES", 191)
    assert "its parts of 192 bytes are larger than keras_maskrcnn.data.cis680.MAX_READ_BYTES = 191" in rejection(
        data.Cis680, tmp_path
    )


def test_a_wide_chunk_is_read_in_part(tmp_path, monkeypatch):
    values = np.arange(6 * 64).reshape(6, 8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=values, chunks=(6, 1, 1))
    monkeypatch.setattr(cis680, "MAX_READ_BYTES", 2 * 64 * values.itemsize)
    array = cis680._Array(tmp_path / "a.h5", 3)
    np.testing.assert_array_equal(array.read(3, 5, "masks"), values[3:5])
    assert "larger than" in rejection(array.read, 1, 5, "masks")


@pytest.mark.parametrize(
    "create",
    [
        lambda file: file.__setitem__("data", h5py.ExternalLink("other.h5", "data")),
        lambda file: file.__setitem__("data", h5py.SoftLink("/elsewhere")),
        unallocated(1, 8, 8, external=[("other.bin", 0, 64)]),
        lambda file: file.create_virtual_dataset("data", h5py.VirtualLayout((1, 8, 8), "u1")),
    ],
)
def test_hdf5_data_in_other_files(tmp_path, create):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.ones((1, 8, 8), np.uint8)
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["elsewhere"] = np.ones((1, 8, 8), np.uint8)
    (tmp_path / "other.bin").write_bytes(bytes(64))
    course_files(tmp_path, unallocated(1, 3, 8, 8), create)
    assert "its dataset 'data' is stored elsewhere" in rejection(data.Cis680, tmp_path)
