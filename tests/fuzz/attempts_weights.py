"""Weight files of other projects: torch (zip and before), pickles, safetensors, Keras 2's .h5; and .npy of objects."""

import importlib.util
import io
import pathlib
import pickle
import struct

import changes
import numpy as np
from attempts_arrays import hdf5_changed, npy_changed
from target import changed_files, target, written

from keras_maskrcnn.pickles import npy
from keras_maskrcnn.pickles.npy import UnreadableFileError


def load():
    """Imports what the targets need, before memory is limited."""
    import h5py
    import safetensors.numpy

    return h5py, safetensors.numpy


def arrays():
    values = np.arange(12, dtype=np.float32)
    return {"a.weight": values.reshape(3, 4), "a.bias": values[:3], "n": np.array(7)}


def read(path):
    """Reads all arrays of a file, whose pages are then used."""
    from keras_maskrcnn.weights import files

    for name, array in files.read(path).items():
        assert isinstance(name, str) and array.dtype.kind in "fiub", (name, array.dtype)
        array.sum()


def _writer():
    place = pathlib.Path(__file__).parents[1] / "weights" / "torch_writer.py"
    spec = importlib.util.spec_from_file_location("torch_writer", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checkpoint(writer):
    tensors = {name: writer.tensor(array) for name, array in arrays().items()}
    return {"model": writer.ordered(tensors), "epoch": 3, "optimizer": {"lr": 0.1}}


@target("torch_zip", quick=300, weight=2)
def torch_zip(folder):
    writer = _writer()
    writer.write_zip(folder / "w.pth", _checkpoint(writer))

    def inner(name, content, rng):
        return changes.pickle_changed(content, rng) if name.endswith(".pkl") else changes.bytes_changed(content, rng)

    def change(_, content, rng):
        return changes.zip_changed(content, rng, inner)

    return changed_files(folder, lambda: read(folder / "w.pth"), change)


@target("torch_legacy", quick=200, weight=2)
def torch_legacy(folder):
    writer = _writer()
    writer.write_legacy(folder / "w.pth", _checkpoint(writer))

    def change(_, content, rng):
        if rng.random() < 0.4:
            return changes.bytes_changed(content, rng)
        stream, parts = io.BytesIO(content), []
        for _ in range(5):
            start = stream.tell()
            for _ in changes.pickletools.genops(stream):
                pass
            parts.append(content[start : stream.tell()])
        place = rng.randrange(5)
        parts[place] = changes.pickle_changed(parts[place], rng)
        return b"".join(parts) + content[stream.tell() :]

    return changed_files(folder, lambda: read(folder / "w.pth"), change)


@target("pickle", quick=300, weight=2)
def detectron2(folder):
    named = {"model": arrays(), "__author__": "somebody", "matching_heuristics": True}
    written(folder / "two.pkl", pickle.dumps(named, 2))
    written(folder / "four.pkl", pickle.dumps(named, 4))
    latest = []

    def change(name, content, rng):
        latest[:] = [folder / name]
        return changes.pickle_changed(content, rng)

    cases = changed_files(folder, None, change)

    def case(rng):
        latest[:] = [folder / "two.pkl"]
        cases(rng)
        path = latest[0]
        return lambda: read(path)

    return case


@target("safetensors", quick=200)
def safetensors(folder):
    from safetensors.numpy import save

    written(folder / "w.safetensors", save(arrays()))

    def change(_, content, rng):
        if rng.random() < 0.4:
            return changes.bytes_changed(content, rng)
        (size,) = struct.unpack("<Q", content[:8])
        head = changes.json_changed(
            content[8 : 8 + size], rng, (*changes.VALUES, "F64", "BF16", "BOOL", "F8_E4M3", [0, 48])
        )
        return struct.pack("<Q", len(head)) + head + content[8 + size :]

    return changed_files(folder, lambda: read(folder / "w.safetensors"), change)


@target("matterport", quick=200)
def matterport(folder):
    import h5py

    path = folder / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1", b"rpn"]
        for layer in ("conv1", "rpn"):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in ("kernel", "bias")]
            group[f"{layer}/kernel:0"], group[f"{layer}/bias:0"] = np.ones((3, 3, 1, 2), "f4"), np.zeros(2, "f4")

    def change(_, content, rng):
        return hdf5_changed(path, content, rng) if rng.random() < 0.5 else changes.bytes_changed(content, rng)

    return changed_files(folder, lambda: read(path), change)


@target("any_weights", quick=100)
def any_weights(folder):
    """Bytes that begin as a file of one of the formats does."""
    from keras_maskrcnn.data import DataError

    heads = (
        b"\x89HDF\r\n\x1a\n",
        b"\x20\0\0\0\0\0\0\0{",
        b"PK\3\4",
        b"\x80\2",
        b"\x80\4\x95\x20" + bytes(7),
        b"<html>",
        b"version https://git-lfs",
    )
    path = folder / "w"

    def read_or_refused():
        try:
            read(path)
        except DataError:
            if path.read_bytes():
                raise

    def case(rng):
        written(path, b"" if rng is None else rng.choice(heads) + rng.randbytes(rng.choice([0, 1, 20, 300])))
        return read_or_refused

    return case


@target("npy_objects", quick=200, allowed=(UnreadableFileError,))
def npy_objects(folder):
    values = np.empty(3, object)
    values[:] = [np.ones((2, 4), np.float32), np.array([1, 2]), np.zeros((0, 4))]
    np.save(folder / "a.npy", values, allow_pickle=True)
    return changed_files(folder, lambda: npy.read_objects(folder / "a.npy"), lambda _, *given: npy_changed(*given))
