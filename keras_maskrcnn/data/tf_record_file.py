"""TFRecord files: a sequence of records, each between its length and a checksum.

A record is `uint64 length, uint32 masked CRC-32C of the length, bytes, uint32 masked CRC-32C of the bytes`, numbers
little-endian. Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h.

The checksums come from `google-crc32c`, a package of a few kilobytes of compiled code, so that files are read and
written without TensorFlow, whose public functions have no access to a record at a known place.
"""

import contextlib
import os
import struct

import numpy as np

from keras_maskrcnn.data.sample import DataError

_HEADER, _CHECK = struct.Struct("<QI"), struct.Struct("<I")
GZIP = b"\x1f\x8b"


def places(path):
    """Returns the places of the records of a file: int64 [n, 2], start and length of the bytes of each.

    Only lengths are read. Their checksums are verified, so that a damaged length leads nowhere.

    Raises:
        DataError: the file is empty, truncated, compressed, or no TFRecord file.
    """
    found, at, size = [], 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while at < size:
            header = file.read(_HEADER.size)
            if header.startswith(GZIP) and not at:
                raise DataError(path, "is compressed; only files that are not can be read record by record")
            if len(header) < _HEADER.size:
                raise DataError(path, f"is truncated after {len(found)} records, at byte {at} of {size}")
            length, check = _HEADER.unpack(header)
            if check != _masked_crc(header[:8]):
                what = f"is damaged after {len(found)} records, at byte {at}" if found else "is no TFRecord file"
                raise DataError(path, what)
            found.append((at + _HEADER.size, length))
            at += _HEADER.size + length + _CHECK.size
            if at > size:
                raise DataError(path, f"is truncated in record {len(found) - 1}: it has {size} bytes of {at}")
            file.seek(at)
    if not found:
        raise DataError(path, "is empty")
    return np.array(found, np.int64)


def read(path, start, length, place):
    """Returns the bytes of a record, whose checksum is verified.

    Raises:
        DataError: the checksum is another one, or the file cannot be read; `place` is named.
    """
    try:
        with open(path, "rb") as file:
            file.seek(start)
            content, check = file.read(length), file.read(_CHECK.size)
    except OSError as error:
        raise DataError(place, f"cannot be read ({error.strerror})") from error
    if check != _CHECK.pack(_masked_crc(content)):
        raise DataError(place, "is damaged: its bytes do not fit their checksum")
    return content


@contextlib.contextmanager
def writer(path):
    """Yields a function that appends the bytes of a record; the file is complete or not there."""
    temporary = f"{path}.part"
    try:
        with open(temporary, "wb") as file:
            yield lambda content: _append(file, content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _append(file, content):
    length = struct.pack("<Q", len(content))
    file.write(length + _CHECK.pack(_masked_crc(length)) + content + _CHECK.pack(_masked_crc(content)))


def _masked_crc(content):
    try:
        import google_crc32c
    except ModuleNotFoundError:
        reason = 'need the package google-crc32c: pip install "keras3-maskrcnn[tfrecord]"'
        raise DataError("TFRecord files", reason) from None
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
