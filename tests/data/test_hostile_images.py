"""Image and HDF5 files that are small on disk and large in memory, and formats that start other programs."""

import struct
import time
import zlib
from unittest import mock

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


def tiff_pages(count, back_to=None, samples=1):
    """A TIFF file of pages of 4 x 4 pixels, of which the last leads to the page `back_to`."""
    pixels, start = bytes(16 * samples), 8 + 16 * samples
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 8), (277, samples), (278, 4), (279, 16 * samples)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    size, content = len(fields) + 6, struct.pack("<2sHI", b"II", 42, start) + pixels
    places = [start + size * page for page in range(1, count)] + [0 if back_to is None else start + size * back_to]
    return content + b"".join(struct.pack("<H", len(tags)) + fields + struct.pack("<I", place) for place in places)


@pytest.mark.parametrize(
    ("count", "back_to", "samples"),
    [(1, 0, 1), (2, 0, 1), (150, 3, 1), (40_000, None, 1), (1, 0, 5), (150, 3, 5), (150, 120, 5), (40_000, None, 5)],
)
def test_tiff_pages_in_a_circle_or_without_number(tmp_path, count, back_to, samples):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_pages(count, back_to, samples))
    data.read_image(path, channels=1) if samples == 1 else None  # imports what is needed
    start = time.perf_counter()
    for channels in (1, 3, 4, 5):
        try:
            assert data.read_image(path, channels=channels).shape == (4, 4, channels)
        except data.DataError as error:
            assert "\n" not in str(error)
    assert time.perf_counter() - start < 1
    if samples == 5:
        reason = "it has more than keras_maskrcnn.data.array_file.MAX_PAGES = 1000 pages"
        assert reason in rejection(data.read_image, path, True, 5)


def test_pages_are_channels_where_they_are_as_many(tmp_path):
    pages = [Image.new("L", (4, 5), level) for level in (10, 20, 30, 40)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert data.read_image(tmp_path / "a.tif", channels=4)[0, 0].tolist() == [10, 20, 30, 40]
    assert data.read_image(tmp_path / "a.tif", channels=3)[0, 0].tolist() == [10, 10, 10]


def test_a_tiff_file_opens_no_other_file(tmp_path):
    """OME-XML can name further files, as multi-file data sets of microscopes do."""
    names = ("a.ome.tif", "b.ome.tif")
    for name in names:
        tifffile.imwrite(tmp_path / name, np.zeros((5, 8, 8), np.uint8), photometric="minisblack")
    plane = '<TiffData FirstC="{}" IFD="0"><UUID FileName="{}">urn:uuid:{}</UUID></TiffData>'
    planes = "".join(plane.format(channel, names[channel % 2], channel) for channel in range(5))
    pixels = 'DimensionOrder="XYCZT" ID="Pixels:0" SizeC="5" SizeT="1" SizeX="8" SizeY="8" SizeZ="1" Type="uint8"'
    ome = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels {pixels}>'
    ome += f'<Channel ID="Channel:0:0"/>{planes}</Pixels></Image></OME>'
    contig = {"photometric": "rgb", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / names[0], np.zeros((8, 8, 5), np.uint8), **contig, description=ome)
    with mock.patch.object(tifffile, "TiffFile", wraps=tifffile.TiffFile) as opened:
        assert data.read_image(tmp_path / names[0], channels=5).shape == (8, 8, 5)
    assert opened.call_count == 1


def test_every_way_of_decoding_keeps_to_the_limit_of_pixels(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="the extra video is not installed")
    from keras_maskrcnn.data.video import VideoWriter, frames

    writer = VideoWriter(tmp_path / "a.mp4", 10)
    writer.add(np.zeros((20, 40, 3), np.uint8))
    writer.close()
    np.save(tmp_path / "a.npy", np.zeros((20, 40, 3), np.uint8))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 40, 5), np.uint8), planarconfig="contig", photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 40, 3), np.uint16), planarconfig="contig", photometric="rgb")
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    data.write_tfrecord(data.Shapes(1), tmp_path / "train.record")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    Image.new("L", (40, 20)).save(tmp_path / "masks" / "a.png")
    ways = [
        lambda: data.read_image(tmp_path / "a.png"),
        lambda: data.read_image(tmp_path / "a.npy"),
        lambda: data.read_image(tmp_path / "a.tif", channels=5),
        lambda: data.read_image(tmp_path / "b.tif", dtype="uint16"),
        lambda: next(frames(tmp_path / "a.mp4")),
        lambda: data.TfRecord(tmp_path / "train.record")[0],
        lambda: data.MaskFolder(tmp_path / "images", tmp_path / "masks")[0],
    ]
    for way in ways[:-1]:
        way()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 799)
    for way in ways:
        reason = rejection(way)
        assert "pixels, more than the 799 of PIL.Image.MAX_IMAGE_PIXELS" in reason or "limit of 1598 pixels" in reason
