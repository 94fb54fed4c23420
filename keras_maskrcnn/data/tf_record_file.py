"""TFRecord files: a sequence of records, each between its length and a checksum.

A record is `uint64 length, uint32 masked CRC-32C of the length, bytes, uint32 masked CRC-32C of the bytes`, numbers
little-endian. Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h.

The checksums come from `google-crc32c`, a package of a few kilobytes of compiled code, so that files are read and
written without TensorFlow, whose public functions have no access to a record at a known place.
"""

import contextlib
import io
import struct

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular

_HEADER, _CHECK = struct.Struct("<QI"), struct.Struct("<I")
FRAME = _HEADER.size + _CHECK.size  # bytes of a record beside its content
GZIP = b"\x1f\x8b"


def lengths(path):
    """Returns the lengths of the records of a file: int64 [n]. The first begins at byte 0, each next one `FRAME` later.

    Only lengths are read. Their checksums are verified, so that a damaged length leads nowhere.

    Args:
        path: Path or `Url`.

    Raises:
        DataError: the file is empty, truncated, compressed, or no TFRecord file.
    """
    size = path.stat().st_size
    with regular(path).open("rb") as file:
        return _lengths(file, size, path)


def contents(path):
    """Returns the contents of all records of a small file: a list of bytes; errors as for `lengths` and `read`."""
    with regular(path).open("rb") as file:
        found = file.read()
    result, start = [], 0
    for length in _lengths(io.BytesIO(found), len(found), path).tolist():
        result.append(_checked(found[start : start + length + FRAME], length, path))
        start += length + FRAME
    return result


def _lengths(file, size, path):
    found, at = [], 0
    while at < size:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise DataError(path, f"is truncated after {len(found)} records, at byte {at} of {size}")
        length, check = _HEADER.unpack(header)
        if check != _masked_crc(header[:8]):
            raise DataError(path, _fault(header, at, len(found)))
        found.append(length)
        at += length + FRAME
        if at > size:
            raise DataError(path, f"is truncated in record {len(found) - 1}: it has {size} bytes of {at}")
        if at < size:
            file.seek(at)
    if not found:
        raise DataError(path, "is empty")
    return np.array(found, np.int64)


def _fault(header, at, count):
    """What is wrong with a file whose record `count`, at byte `at`, has no header."""
    if count:
        return f"is damaged after {count} records, at byte {at}"
    compressed = "is compressed; only files that are not can be read record by record"
    return compressed if header.startswith(GZIP) else "is no TFRecord file"


def read(path, start, length, place):
    """Returns the content of a record, whose length and checksum are verified.

    Args:
        path: Path or `Url`.
        start: byte at which the record begins.
        length: of the content.
        place: what errors name.

    Raises:
        DataError: the checksum is another one, no record of this length begins there, or the file cannot be read.
    """
    try:
        with regular(path).open("rb") as file:
            file.seek(start)
            found = file.read(length + FRAME)
    except OSError as error:
        raise DataError(place, f"cannot be read ({error.strerror})") from error
    return _checked(found, length, place)


def _checked(record, length, place):
    """Returns the content of a record, whose `length` and checksum are verified; errors as for `read`."""
    header, content, check = record[: _HEADER.size], record[_HEADER.size : -_CHECK.size], record[-_CHECK.size :]
    if header != _header(length):
        raise DataError(place, f"is damaged, or the index is that of another file: no record of {length} bytes is here")
    if check != _CHECK.pack(_masked_crc(content)):
        raise DataError(place, "is damaged: its bytes do not fit their checksum")
    return content


@contextlib.contextmanager
def writer(path):
    """Yields a function that appends the bytes of a record; the file, a Path or `Url`, is complete or not there."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield lambda content: file.write(_record(content))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _record(content):
    return _header(len(content)) + content + _CHECK.pack(_masked_crc(content))


def _header(length):
    packed = struct.pack("<Q", length)
    return packed + _CHECK.pack(_masked_crc(packed))


def _masked_crc(content):
    try:
        import google_crc32c
    except ModuleNotFoundError:
        reason = 'need the package google-crc32c: pip install "keras3-maskrcnn[tfrecord]"'
        raise DataError("TFRecord files", reason) from None
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
