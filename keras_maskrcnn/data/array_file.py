"""Image files beyond Pillow: TIFF of any number of channels and of 16 bits, PNG of 16-bit colour, and NumPy arrays."""

import contextlib
import importlib
import io

import numpy as np
from PIL import Image

from keras_maskrcnn.data.image_type import MAX_CHANNELS
from keras_maskrcnn.data.paths import regular

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # first bytes of TIFF and BigTIFF files
MAX_PAGES = 1000  # of a TIFF file; each page states where the next one is, so that few bytes can make many, or a circle
SERIES = {"imagej", "shaped", "uniform"}  # how tifffile finds channels; other ways read further files that one names


def stream(source):
    """What libraries open: the path of a file, or a binary stream of its bytes."""
    return io.BytesIO(source) if isinstance(source, bytes) else regular(source)


def is_tiff(source):
    """Whether a file, of which `source` is the path or the bytes, begins as TIFF files do."""
    return _content(source, 4) in TIFF


def tiff(source):
    """Decodes the first series of a TIFF file: channels side by side, in planes, or as pages.

    Args:
        source: path of the file, or its bytes.

    Returns:
        (pixels, orientation): an array `[H, W]` or `[H, W, n]`, and the EXIF orientation.

    Raises:
        ValueError: it has more axes than these, or more pages, channels or pixels than the limits.
    """
    library = _library("tifffile")
    flags = {f"is_{name}": False for name in library.TIFF.FILE_FLAGS - SERIES}
    with library.TiffFile(stream(source), **flags) as file:
        _check_pages(file)
        series = file.series[0]
        axes = [axis for axis in zip(series.axes, series.shape, strict=True) if axis[1] > 1 or axis[0] in "YX"]
        names, shape = "".join(name for name, _ in axes), tuple(length for _, length in axes)
        others = [place for place, name in enumerate(names) if name not in "YX"]
        if not {"Y", "X"} <= set(names) or len(others) > 1:
            raise ValueError(f"it has the axes {names} of {list(shape)}, not Y, X and channels")
        check_size(shape[names.index("X")], shape[names.index("Y")], shape[others[0]] if others else 1)
        if series.keyframe.is_tiled:
            check_size(series.keyframe.tilewidth, series.keyframe.tilelength)
        pixels = series.asarray().reshape(shape)
        tag = file.pages.first.tags.get("Orientation")
        return np.moveaxis(pixels, others, [-1] * len(others)), int(tag.value) if tag else 1


def _check_pages(file):
    with contextlib.suppress(IndexError):
        file.pages[MAX_PAGES]
        raise ValueError(f"it has more than {__name__}.MAX_PAGES = {MAX_PAGES} pages")


def png(source):
    """Decodes all bits of a PNG file, given its path or its bytes: uint8 or uint16 `[H, W]` or `[H, W, n]`."""
    return _library("imagecodecs").png_decode(_content(source))


def npy(path):
    """Reads a `.npy` file with an array `[H, W]` or `[H, W, n]`; nothing is unpickled.

    Raises:
        ValueError: it has another shape, or more channels or pixels than the limits.
    """
    pixels = np.load(regular(path), mmap_mode="r", allow_pickle=False)  # a header cannot claim more than the file holds
    if pixels.ndim not in (2, 3):
        raise ValueError(f"its array has the shape {list(pixels.shape)}, not [height, width, channels]")
    check_size(pixels.shape[1], pixels.shape[0], *pixels.shape[2:])
    return pixels.astype(pixels.dtype.newbyteorder("="), subok=False)


def check_size(width, height, channels=1):
    """Raises a ValueError for an image without pixels, or with more pixels or channels than the limits."""
    if width * height * channels == 0:
        raise ValueError("it has no pixels")
    if channels > MAX_CHANNELS:
        raise ValueError(f"it has {channels} channels, and {MAX_CHANNELS} are the most")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        limit = f"more than the {Image.MAX_IMAGE_PIXELS} of PIL.Image.MAX_IMAGE_PIXELS"
        raise ValueError(f"has {width} x {height} pixels, {limit}")


def _content(source, count=-1):
    """The first bytes of a file, by default all."""
    if isinstance(source, bytes):
        return source if count < 0 else source[:count]
    with open(regular(source), "rb") as file:
        return file.read(count)


def _library(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f'it needs {name}: pip install "keras3-maskrcnn[channels]"') from error
