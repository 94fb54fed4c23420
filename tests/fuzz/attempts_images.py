"""Images of all formats, and those beyond Pillow: TIFF of many channels, 16-bit colour, .npy."""

import io
import struct

import changes
import numpy as np
from attempts_arrays import npy_changed
from target import changed_files, target, written

from keras_maskrcnn import data

KINDS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
CHOICES = (
    (True, 3, "uint8"),
    (False, 3, "uint8"),
    (True, 1, "uint16"),
    (True, 4, "uint8"),
    (True, 3, "uint16"),
    (True, 6, "uint8"),
)


def load():
    """Imports what the targets need, before memory is limited."""
    import imagecodecs
    import tifffile
    from PIL import Image

    Image.init()
    return imagecodecs, tifffile


def plain():
    """(name, bytes) of files that Pillow writes, in all modes and formats."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = [(mode, kind) for mode in ("RGB", "L") for kind in KINDS]
    saved += [
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
        ("1", "TIFF"),
        ("LA", "PNG"),
        ("RGBA", "WEBP"),
    ]
    for mode, kind in saved:
        image = Image.fromarray(pixels)
        sixteen = Image.fromarray(pixels[..., 0].astype(np.uint16))
        image = (
            sixteen if mode == "I;16" else image.convert("RGB" if mode not in ("RGBA", "LA") else "RGBA").convert(mode)
        )
        stream = io.BytesIO()
        image.save(stream, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        yield f"{mode}.{kind.lower()}", stream.getvalue()
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        stream = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(stream, "TIFF", compression=compression)
        yield f"{compression}.tiff", stream.getvalue()


def beyond():
    """(name, bytes) of TIFF files of several channels, tiles, pages and 16 bits, and a PNG file of 16-bit colour."""
    import imagecodecs
    import tifffile

    values = np.random.default_rng(0).integers(0, 2**16, (32, 48, 6), np.uint16)
    ways = {
        "six": (values, {"photometric": "minisblack"}),
        "planes": (values.transpose(2, 0, 1), {"photometric": "minisblack", "planarconfig": "separate"}),
        "tiles": (values[..., :3], {"photometric": "rgb", "tile": (16, 16), "compression": "zlib"}),
        "pages": (values.transpose(2, 0, 1)[:4], {"photometric": "minisblack", "metadata": None}),
        "big": (values[..., :4].astype(np.uint8), {"photometric": "minisblack"}),
    }
    for name, (array, options) in ways.items():
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream, bigtiff=name == "big") as file:
            file.write(array, **options)
        yield f"{name}.tiff", stream.getvalue()
    yield "colour.png", imagecodecs.png_encode(np.ascontiguousarray(values[..., :3]))


def npy():
    """(name, bytes) of .npy files."""
    for name, values in (("grey", np.eye(4, dtype=np.uint8)), ("six", np.ones((4, 5, 6), np.uint16))):
        stream = io.BytesIO()
        np.save(stream, values)
        yield f"{name}.npy", stream.getvalue()


def changed(name, content, rng):
    """An image file with changed bytes, or chunks, pages or header."""
    if name.endswith(".npy"):
        return npy_changed(content, rng)
    if name.endswith(".tiff") and rng.random() < 0.5:
        return tiff_changed(content, rng)
    return changes.by_name(name)(content, rng)


def tiff_changed(content, rng):
    """A TIFF file with an entry of its first directory changed, or whose directories point in a circle."""
    if content[:4] != b"II*\0":
        return changes.bytes_changed(content, rng)
    content = bytearray(content)
    (start,) = struct.unpack("<I", content[4:8])
    (count,) = struct.unpack("<H", content[start : start + 2])
    place = start + 2 + 12 * rng.randrange(count)
    kind = rng.randrange(5)
    if kind == 0:
        content[start + 2 + 12 * count : start + 6 + 12 * count] = struct.pack(
            "<I", rng.choice([start, 8, len(content)])
        )
    elif kind == 1:
        content[place + 2 : place + 4] = struct.pack("<H", rng.randrange(20))
    elif kind == 2:
        content[place + 4 : place + 8] = struct.pack("<I", rng.choice(changes.WORDS) % 2**32)
    elif kind == 3:
        content[place : place + 2] = struct.pack(
            "<H", rng.choice([256, 257, 258, 259, 262, 273, 277, 279, 322, 323, 324, 339, 34665])
        )
    else:
        content[place + 8 : place + 12] = struct.pack("<I", rng.choice(changes.WORDS) % 2**32)
    return bytes(content)


def reader(folder, files, choices=CHOICES):
    """`case` that changes one of the files and reads it in several ways."""
    for name, content in files:
        written(folder / name, content)
    latest = []

    def change(name, content, rng):
        latest[:] = [folder / name]
        return changed(name, content, rng)

    cases = changed_files(folder, None, change)

    def case(rng):
        latest[:] = []
        cases(rng)
        if rng is None:
            return lambda: data.read_image(folder / files[0][0])
        paths = latest or sorted(folder.iterdir())
        ways = rng.sample(choices, 2)
        return lambda: attempted(paths, ways)

    return case


def attempted(paths, ways):
    """Reads files in several ways; raises the last error if none succeeds."""
    from target import check_message

    error, found = None, 0
    for path in paths:
        for way in ways:
            try:
                image = data.read_image(path, *way)
                assert image.shape[2] == way[1] and image.dtype == way[2] and image.size, (image.shape, image.dtype)
                found += 1
            except data.DataError as refused:
                check_message(refused)
                error = refused
    if error is not None and not found:
        raise error


@target("images", quick=600, weight=4)
def images(folder):
    return reader(folder, list(plain()))


@target("images_of_channels", quick=200, weight=2)
def images_of_channels(folder):
    return reader(folder, list(beyond()))


@target("images_npy", quick=100)
def images_npy(folder):
    return reader(folder, list(npy()), ((True, 1, "uint8"), (True, 6, "uint16"), (False, 3, "uint8")))
