"""Weight files of Keras 2 (.h5), as published by matterport's Mask R-CNN.

The attribute `layer_names` lists the layers; each layer is a group whose attribute `weight_names` lists its datasets.
In a file of a full model this structure is below the group `model_weights`. Only numeric datasets are read (with h5py,
extra `convert`), not the model's configuration, which may contain Python code. Links are not followed, and no more
bytes of arrays and of names are read than the file has. Of the bugs of the HDF5 C library with damaged files this
module prevents those in `_check_heap` and `_check_lists`.
"""

import itertools
import math
import mmap
import pathlib
import re
import struct

import numpy as np

from keras_maskrcnn.pickles.safe_pickle import UnreadableError


def read(path):
    """Reads the weights of all layers.

    The name of a weight is the last two parts of its entry in `weight_names`, "layer/weight". For layers of a nested
    model, such as matterport's `rpn_model`, that is the name of the inner layer. Entries with one part are prefixed
    with the name of the group.

    Args:
        path: str or Path.

    Returns:
        Dict from name, for example "res2a_branch2a/kernel:0", to array, in the order of the file.

    Raises:
        UnreadableError: The file is not a Keras 2 weight file, has duplicate names or non-numeric data.
        ImportError: h5py is not installed.
        OSError: The file is damaged.
    """
    import h5py

    _check(path)
    arrays, left = {}, pathlib.Path(path).stat().st_size
    with h5py.File(path, "r") as file:
        root = _member(file, "model_weights") if "model_weights" in file else file
        for layer in _names(root, "layer_names"):
            group = _member(root, layer)
            for weight in _names(group, "weight_names"):
                name = "/".join([layer, *weight.split("/")][-2:])
                if name in arrays:
                    raise UnreadableError(f"has two weights called {name}")
                arrays[name] = _numbers(_member(group, weight), name, left)
                left -= arrays[name].nbytes
    return arrays


HEAP = b"GCOL\1\0\0\0"
ENTRY = struct.Struct("<HHIQ")  # index, references, nothing, bytes
LISTS = re.compile(rb"(?:layer|weight)_names\d*\0")
TEXT = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])
VARIABLE_LENGTH = 9


def _check(path):
    """Checks what HDF5 1.14 takes from a file unseen.

    Source: HDF5 File Format Specification 3.0, II.A "Superblock", III.E "Global Heap", IV.A.2.m "Attribute Message".

    Raises:
        UnreadableError: HDF5 would not end, or take more memory for names than the file has bytes; or lengths in the
            file do not have eight bytes, as those of h5py do.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if set(data[9:11] if data[8] >= 2 else data[13:15]) != {8}:
            raise UnreadableError("has addresses or lengths of other than eight bytes: it is damaged, or not of Keras")
        start = data.find(HEAP)
        while start >= 0:
            _check_heap(data, start)
            start = data.find(HEAP, start + 1)
        _check_lists(data)


def _check_heap(data, start):
    """HDF5 does not end at a heap of texts whose free space has fewer bytes than its own header."""
    place = start + 16
    end = min(start + int.from_bytes(data[start + 8 : place], "little"), len(data))
    while place + ENTRY.size <= end:
        index, _, _, size = ENTRY.unpack_from(data, place)
        if index == 0 and size < ENTRY.size:
            raise UnreadableError(f"is damaged: the heap at byte {start} has free space of {size} bytes")
        place += size if index == 0 else ENTRY.size + -(-size // 8) * 8


def _check_lists(data):
    """HDF5 takes the memory that the texts of a list state, each up to 4 GB, before it looks for them."""
    left = len(data)
    for name in LISTS.finditer(data):
        for start in (name.start() - 8, name.start() - 9):  # versions 1 and 2 of the message, version 3
            texts = _texts(data, start, name)
            left -= texts.nbytes + int(texts["length"].sum(dtype=np.int64))
            if left < 0:
                raise UnreadableError("is damaged: its lists of names are longer than the file")


def _texts(data, start, name):
    """What an attribute message at a byte says of its texts of variable length; nothing if no message begins there."""
    version = data[start]
    sizes = struct.unpack_from("<3H", data, start + 2)  # of the name, the type and the shape
    if version not in ((1, 2) if name.start() - start == 8 else (3,)) or sizes[0] != name.end() - name.start():
        return np.empty(0, TEXT)
    sizes = [-(-size // 8) * 8 if version == 1 else size for size in sizes]
    kind = name.start() + sizes[0]
    shape = kind + sizes[1]
    if data[kind] & 15 != VARIABLE_LENGTH:
        return np.empty(0, TEXT)
    sides = struct.unpack_from(f"<{data[shape + 1]}Q", data, shape + (8 if data[shape] == 1 else 4))
    first = shape + sizes[2]
    count = min(math.prod(sides), (len(data) - first) // TEXT.itemsize)
    return np.frombuffer(data[first : first + count * TEXT.itemsize], TEXT)


def _member(group, path):
    """The object under a path, each part of which must be in the group before it and not be a link."""
    import h5py

    for part in path.split("/"):
        if part and not isinstance(group.get(part, getlink=True), h5py.HardLink | None):
            raise UnreadableError(f"{path} is a link to another place")
        group = group[part] if part else group
    return group


def _names(group, attribute):
    """A list of names, which Keras splits into `attribute`0, `attribute`1, … above HDF5's limit of 64 KB."""
    parts = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{part}" for part in itertools.count()))
    parts = [attribute] if attribute in group.attrs else list(parts)
    if not parts:
        raise UnreadableError(f"its group {group.name} has no {attribute}: not a weight file of Keras 2")
    names = [name for part in parts for name in np.atleast_1d(group.attrs[part])]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _numbers(dataset, name, limit):
    if getattr(dataset, "dtype", np.dtype("O")).kind not in "fiub":
        raise UnreadableError(f"{name} is not a numeric array")
    if dataset.external or dataset.is_virtual:
        raise UnreadableError(f"{name} is stored in another file")
    if dataset.id.get_create_plist().get_nfilters():  # HDF5 1.14 reads beyond the end of what unpacks to fewer bytes
        raise UnreadableError(f"{name} is compressed, which Keras does not do")
    if dataset.id.get_storage_size() != dataset.nbytes:
        raise UnreadableError(f"{name} has the shape {list(dataset.shape)} but {dataset.id.get_storage_size()} bytes")
    if dataset.nbytes > limit:
        raise UnreadableError(f"lists more numbers than the file has bytes, up to {name}")
    return dataset[()].astype(dataset.dtype.newbyteorder("="), copy=False)
