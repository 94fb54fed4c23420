"""Reads both file formats of torch.save without torch.

Since torch 1.6 a file is a zip archive: `<root>/data.pkl` is the pickled object, `<root>/data/<key>` the bytes of each
storage, `<root>/byteorder` is "little" or "big". The older format is a sequence of pickles (a magic number, 1001, a
description of the machine, the object, the keys of the storages), followed by each storage: number of elements as
int64, and the elements in little-endian order. In both formats a tensor is a view (offset, shape, strides) of a storage
given by key. Source: torch/serialization.py and torch/_utils.py.
"""

import io
import struct
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from keras_maskrcnn.pickles import numpy_pickle, safe_pickle
from keras_maskrcnn.pickles.safe_pickle import Name, UnreadableError
from keras_maskrcnn.weights.stored_numbers import BFLOAT16, BYTES, decode, strided

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": BFLOAT16,
    "torch.DoubleStorage": "float64",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.storage.UntypedStorage": "uint8",
}
LOCAL_HEADER = struct.Struct("<4s22xHH")  # zip entry: signature, length of the name, length of the extra field


class Buffers:
    """The storages of a file, decoded on first use.

    Args:
        data: mmap of the file.

    Attributes:
        order: Byte order, "<" or ">".
        spans: Dict from the key of a storage to its first byte, its size in bytes, and its CRC-32 or 0 for none.
    """

    def __init__(self, data):
        self.data, self.order = data, "<"
        self.spans, self._decoded = {}, {}

    def numbers(self, key, kind):
        """A storage as a 1-D array of a kind in BYTES, shared by all its tensors."""
        if key not in self.spans:
            raise UnreadableError(f"its storage {key[:40]!r} has no data")
        if (key, kind) not in self._decoded:
            start, size, checksum = self.spans[key]
            raw = np.frombuffer(self.data, np.uint8, size, start)
            if not _is_whole(raw, checksum):
                raise UnreadableError(f"its storage {key[:40]!r} is damaged (checksum)")
            self._decoded[key, kind] = decode(raw[: size - size % BYTES[kind]], kind, self.order)
        return self._decoded[key, kind]


class Storage(NamedTuple):
    """A storage, or part of it: `count` elements of a kind in BYTES, starting at `first`."""

    buffers: Buffers
    key: str
    kind: str
    first: int
    count: int  # type: ignore[assignment]  # a field, not the method of tuples


class Tensor(NamedTuple):
    """An unread view of a storage; `first` and `strides` are in elements of its own kind."""

    storage: Storage
    kind: str
    first: int
    shape: tuple
    strides: tuple

    def array(self):
        """The tensor as a read-only array."""
        _, key, kind, first, count = self.storage
        numbers = self.storage.buffers.numbers(key, self.kind)
        start, stop = (index * BYTES[kind] // BYTES[self.kind] for index in (first, first + count))
        if stop > len(numbers):
            raise UnreadableError(f"its storage {key[:40]!r} declares {stop} elements and has {len(numbers)}")
        return strided(numbers[start:stop], self.first, self.shape, self.strides)


def _tensor(storage, first, shape, strides, _requires_grad=False, _hooks=None, metadata=None):
    return _tensor_of_kind(storage, first, shape, strides, None, None, None, metadata)


def _tensor_of_kind(storage, first, shape, strides, _requires_grad, _hooks, kind, metadata=None):
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple) or metadata:
        raise UnreadableError("a tensor is not a plain view of a storage")
    return Tensor(storage, kind.name.removeprefix("torch.") if kind else storage.kind, first, shape, strides)


def _size(shape):
    if not numpy_pickle.is_shape(shape):
        raise UnreadableError("its pickle has a size that is not a tuple of natural numbers")
    return shape


def _of_type(function, _type, arguments, _state):
    if not isinstance(function, Name) or not function.name.startswith("torch._utils._rebuild_"):
        raise UnreadableError("its pickle calls another function for a tensor than torch does")
    return function.call(arguments)


NAMES: dict = {
    **numpy_pickle.NAMES,
    "collections.OrderedDict": safe_pickle.as_dict,
    "collections.Counter": safe_pickle.as_dict,
    "argparse.Namespace": safe_pickle.ignored,
    "torch.device": safe_pickle.ignored,
    "torch.Size": _size,
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_kind,
    "torch._utils._rebuild_parameter": lambda tensor, _requires_grad, _hooks: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, _requires_grad, _hooks, _state: tensor,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    **dict.fromkeys(STORAGES),
    **dict.fromkeys(f"torch.{kind}" for kind in BYTES),
}


def read_zip(path, data):
    """Reads a file of torch 1.6 or later.

    Args:
        path: str or Path.
        data: mmap of the same file.

    Returns:
        The saved object, with a `Tensor` for each tensor and a `numpy_pickle.Array` for each NumPy array.

    Raises:
        UnreadableError: The file is not a torch archive, or contains other objects than weights.
    """
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UnreadableError("is a zip archive without torch's data.pkl")
    _check_overlap(entries.values())
    root = pickles[0].removesuffix("data.pkl")
    buffers = Buffers(data)
    for name, entry in entries.items():
        folder, _, key = name.rpartition("/")
        if folder == f"{root}data":
            buffers.spans[key] = *_span(data, entry), entry.CRC
    if f"{root}byteorder" in entries and _content(data, entries[f"{root}byteorder"]) == b"big":
        buffers.order = ">"
    return safe_pickle.load(io.BytesIO(_content(data, entries[pickles[0]])), NAMES, _storage_reader(buffers, {}))


def _check_overlap(entries):
    """Checks that no two entries share bytes, of which a small file could declare any number."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise UnreadableError(f"its entry {entry.filename[:80]!r} overlaps another entry")
        end = entry.header_offset + LOCAL_HEADER.size + entry.compress_size


def _content(data, entry):
    start, size = _span(data, entry)
    content = data[start : start + size]
    if not _is_whole(content, entry.CRC):
        raise UnreadableError(f"its entry {entry.filename[:80]!r} is damaged (checksum)")
    return content


def _is_whole(content, checksum):
    return checksum == 0 or zlib.crc32(content) == checksum  # torch can leave out the computation, and writes 0


def _span(data, entry):
    """Start and size of the bytes of a zip entry. torch stores them uncompressed; nothing is decompressed here."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise UnreadableError(f"its entry {entry.filename[:80]!r} is compressed; torch.save never compresses")
    signature, *lengths = LOCAL_HEADER.unpack_from(data, entry.header_offset)
    start = entry.header_offset + LOCAL_HEADER.size + sum(lengths)
    if signature != b"PK\x03\x04" or start + entry.file_size > len(data):
        raise UnreadableError(f"its entry {entry.filename[:80]!r} extends past the end of the file")
    return start, entry.file_size


def read_legacy(data):
    """As `read_zip`, for files of torch before 1.6 or written with `_use_new_zipfile_serialization=False`."""
    data.seek(0)
    buffers, declared = Buffers(data), {}
    if safe_pickle.load(data, {}) != MAGIC or safe_pickle.load(data, {}) != PROTOCOL:
        raise UnreadableError("is not a file of torch's protocol 1001")
    safe_pickle.load(data, {})  # byte order of the writing machine; unused, storages are always little-endian
    content = safe_pickle.load(data, NAMES, _storage_reader(buffers, declared))
    keys = safe_pickle.load(data, {})
    place = data.tell()
    for key in keys:
        if type(key) is not str or key not in declared:
            raise UnreadableError("has data for an unreferenced storage")
        (count,) = struct.unpack_from("<q", data, place)
        size = count * BYTES[declared[key].kind]
        if count != declared[key].count or place + 8 + size > len(data):
            raise UnreadableError(
                f"its storage {key[:40]!r} declares {declared[key].count} elements; the file has another number"
            )
        buffers.spans[key] = place + 8, size, 0
        place += 8 + size
    return content


def _storage_reader(buffers, declared):
    """A function from torch's persistent ids to Storages; it adds the full storages to `declared` by key."""

    def read(identity):
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise UnreadableError("its pickle refers to an object that is not a storage")
        _, kind, key, _, count, *view = identity
        if not isinstance(kind, Name) or kind.name not in STORAGES or type(key) is not str:
            raise UnreadableError("its pickle refers to a storage that is not numeric")
        storage = Storage(buffers, key, STORAGES[kind.name], 0, _natural(count))
        declared.setdefault(key, storage)
        if view and view[0] is not None:
            _, first, count = view[0]
            storage = storage._replace(first=_natural(first), count=_natural(count))
        return storage

    return read


def _natural(count):
    if type(count) is not int or count < 0:
        raise UnreadableError("its pickle refers to a storage of invalid size")
    return count
