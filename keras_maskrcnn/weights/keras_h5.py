"""Weight files of Keras 2 (.h5), as published by matterport's Mask R-CNN.

The attribute `layer_names` lists the layers; each layer is a group whose attribute `weight_names` lists its datasets.
In a file of a full model this structure is below the group `model_weights`. Only numeric datasets are read (with h5py,
extra `convert`), not the model's configuration, which may contain Python code. Links are not followed, and no more
bytes of arrays are read than the file has. Of the bugs of the HDF5 C library with damaged files this module prevents
the one in `_check_heaps`; it does not protect against lists of names that repeat one long text.
"""

import itertools
import mmap
import pathlib
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

    _check_heaps(path)
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


def _check_heaps(path):
    """Checks the heaps of texts: HDF5 1.14 does not end at one whose free space has fewer bytes than its own header.

    Source: HDF5 File Format Specification 3.0, II.A "Superblock" and III.E "Global Heap".

    Raises:
        UnreadableError: there is such a heap, or lengths in the file do not have eight bytes, as those of h5py do.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if set(data[9:11] if data[8] >= 2 else data[13:15]) != {8}:
            raise UnreadableError("has addresses or lengths of other than eight bytes: it is damaged, or not of Keras")
        start = data.find(HEAP)
        while start >= 0:
            _check_heap(data, start)
            start = data.find(HEAP, start + 1)


def _check_heap(data, start):
    place = start + 16
    end = min(start + int.from_bytes(data[start + 8 : place], "little"), len(data))
    while place + ENTRY.size <= end:
        index, _, _, size = ENTRY.unpack_from(data, place)
        if index == 0 and size < ENTRY.size:
            raise UnreadableError(f"is damaged: the heap at byte {start} has free space of {size} bytes")
        place += size if index == 0 else ENTRY.size + -(-size // 8) * 8


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
    if dataset.id.get_storage_size() != dataset.nbytes:
        raise UnreadableError(f"{name} has the shape {list(dataset.shape)} but {dataset.id.get_storage_size()} bytes")
    if dataset.nbytes > limit:
        raise UnreadableError(f"lists more numbers than the file has bytes, up to {name}")
    return dataset[()].astype(dataset.dtype.newbyteorder("="), copy=False)
