"""IDX files, the format of MNIST: an array of bytes after a header of its sizes, plain or compressed by gzip."""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular

MAX_BYTES = 2**30  # a larger array is refused before memory is taken for it
_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 8


def read_idx(path, axes):
    """Reads an IDX file of unsigned bytes.

    The header has two bytes 0, the type of the numbers (8 for unsigned bytes), the number of axes, and the length of
    each axis as a big-endian 32-bit number; the last axis varies fastest (LeCun, Cortes & Burges, "The MNIST database
    of handwritten digits", section "File formats").

    Args:
        path: str or Path.
        axes: Number of axes that the array must have: 3 for images [n, height, width], 1 for labels [n].

    Returns:
        uint8 array.

    Raises:
        DataError: The file is missing, truncated or too long, is no IDX file, or has another type or number of axes.
    """
    path = pathlib.Path(regular(path))
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == _GZIP
        with gzip.open(path) if compressed else open(path, "rb") as file:
            return _array(file, axes, path)
    except OSError as error:  # gzip.BadGzipFile is one
        raise DataError(path, f"cannot be read ({error.strerror or error})") from error
    except (EOFError, zlib.error) as error:
        raise DataError(path, f"is damaged ({error})") from error


def read_mnist(images, labels=None):
    """Reads images and labels of two IDX files.

    Args:
        images: Path of the images.
        labels: Path of the labels; None for the file beside it with the name that MNIST gives it, for example
            `train-labels-idx1-ubyte.gz` for `train-images-idx3-ubyte.gz`.

    Returns:
        (uint8 [n, height, width], uint8 [n]).

    Raises:
        DataError: A file cannot be used, see `read_idx`, or the two have different numbers of entries.
    """
    images = pathlib.Path(images)
    if labels is None:
        name = images.name.replace("images", "labels").replace("idx3", "idx1")
        if name == images.name:
            raise DataError(images, 'its name has no "images" that leads to its labels: give both paths')
        labels = images.with_name(name)
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(labels, f"has {len(classes)} labels for the {len(pixels)} images of {images.name}")
    return pixels, classes


def _array(file, axes, path):
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise DataError(path, "is not an IDX file")
    if head[2] != _UNSIGNED_BYTE:
        raise DataError(path, f"holds numbers of the type {head[2]:#04x}, not unsigned bytes (0x08)")
    if head[3] != axes:
        raise DataError(path, f"has {head[3]} axes, not {axes}")
    sizes = file.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise DataError(path, "ends within its header")
    shape = struct.unpack(f">{axes}I", sizes)
    count = math.prod(shape)
    if count > MAX_BYTES:
        raise DataError(path, f"states {count} bytes, more than {__name__}.MAX_BYTES = {MAX_BYTES}")
    content = file.read(count + 1)
    if len(content) != count:
        amount = "fewer" if len(content) < count else "more"
        raise DataError(path, f"has {amount} bytes than the {count} of its header's {list(shape)}")
    return np.frombuffer(content, np.uint8).reshape(shape)
