"""Writes both formats of torch.save byte by byte without torch, including invalid files that torch never writes.

`pickled` writes a value as a pickle of protocol 2. Besides Python values it supports

    Name("os.system")                a global
    Call(name, arguments, state)     a call of the global, and a state for the result
    Tensor(storage, kind, first, shape, strides)   a view of a 1-D array of raw numbers

Tensors that hold the same array object share one storage.
"""

import dataclasses
import itertools
import pickle
import struct
import zipfile
from typing import Any

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclasses.dataclass
class Name:
    """A global, "module.attribute"."""

    path: str


@dataclasses.dataclass
class Call:
    """`name(*arguments)`, then `state` if there is one."""

    name: Name
    arguments: tuple
    state: Any = None


@dataclasses.dataclass
class Tensor:
    """A view of a storage; `declared` is the number of elements in the pickle, by default the true one."""

    storage: np.ndarray
    kind: str
    first: int
    shape: tuple
    strides: tuple
    declared: int | None = None

    def identity(self, key):
        """torch's persistent id of the storage, a tuple."""
        count = len(self.storage) if self.declared is None else self.declared
        return ("storage", Name(f"torch.{STORAGES[self.kind]}"), key, "cpu", count)


def tensor(array, kind=None):
    """A Tensor with its own storage; for `kind` "bfloat16" the array is the upper halves as uint16."""
    array = np.asarray(array)
    strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)[: array.ndim]
    return Tensor(array.ravel(), kind or str(array.dtype), 0, array.shape, strides)


def ordered(items, state=None):
    """A collections.OrderedDict as Python 3 pickles it: an empty one, its attributes, its items."""
    return Call(Name("collections.OrderedDict"), (), state), items


def write_zip(path, content, byteorder="little", compression=zipfile.ZIP_STORED, root="archive"):
    """Writes the format of torch 1.6 and later."""
    body, storages = pickled(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", body)
        archive.writestr(f"{root}/byteorder", byteorder)
        for key, (storage, _) in storages.items():
            archive.writestr(f"{root}/data/{key}", _bytes(storage, byteorder))
        archive.writestr(f"{root}/version", "3\n")


def write_legacy(path, content):
    """Writes the format before torch 1.6: five pickles in a row, then the storages, little-endian."""
    body, storages = pickled(content, legacy=True)
    machine = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, machine)]
    data = [struct.pack("<q", len(storage)) + _bytes(storage, "little") for storage, _ in storages.values()]
    path.write_bytes(b"".join([*head, body, pickle.dumps(list(storages), 2), *data]))


def pickled(content, legacy=False):
    """The pickle of a value, and a dict from each storage's key to (its numbers, their kind)."""
    storages = {}
    return b"\x80\x02" + b"".join(_instructions(content, storages, legacy)) + b".", storages


def _bytes(storage, byteorder):
    return storage.astype(storage.dtype.newbyteorder("<" if byteorder == "little" else ">")).tobytes()


def _instructions(value, storages, legacy):
    """The instructions that push a value: opcodes of one or two bytes with arguments."""

    def parts(*values):
        return itertools.chain.from_iterable(_instructions(part, storages, legacy) for part in values)

    match value:
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if value else b"\x89"
        case int():
            yield b"J" + struct.pack("<i", value)
        case float():
            yield b"G" + struct.pack(">d", value)
        case str():
            yield b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case Name():
            yield "c{}\n{}\n".format(*value.path.rsplit(".", 1)).encode()
        case Call():
            yield from parts(value.name, value.arguments)
            yield b"R"
            yield from [*parts(value.state), b"b"] if value.state is not None else []
        case (Call() as empty, dict() as items):
            yield from [*parts(empty), b"(", *parts(*itertools.chain(*items.items())), b"u"]
        case tuple():
            yield from [b"(", *parts(*value), b"t"]
        case list():
            yield from [b"](", *parts(*value), b"e"]
        case dict():
            yield from [b"}(", *parts(*itertools.chain(*value.items())), b"u"]
        case Tensor():
            keys = {id(storage): key for key, (storage, _) in storages.items()}
            key = keys.get(id(value.storage), str(len(storages)))
            storages[key] = value.storage, value.kind
            identity = value.identity(key) + ((None,) if legacy else ())
            layout = (value.first, value.shape, value.strides, False, ordered({}))
            rebuild = [*parts(Name("torch._utils._rebuild_tensor_v2")), b"(", *parts(identity), b"Q"]
            yield from [*rebuild, *parts(*layout), b"tR"]
        case _:
            raise TypeError(f"no instructions for {value!r}")
