"""Data in arrays and records: CIS 680's HDF5 and .npy files, `Arrays`, IDX, TFRecord, video."""

import gzip
import struct

import changes
import numpy as np
from target import changed_files, read_all, removed, target, written

from keras_maskrcnn import data
from keras_maskrcnn.data import DataError


def load():
    """Imports what the targets need, before memory is limited."""
    import av
    import google_crc32c
    import h5py
    import pycocotools.mask

    return av, google_crc32c, h5py, pycocotools.mask


def hdf5_changed(path, content, rng):
    """The content of an HDF5 file with a data set of another shape, dtype or storage, a link, or other attributes."""
    import h5py

    path.write_bytes(content)
    with h5py.File(path, "a") as file:
        names = []
        file.visit(names.append)
        name = rng.choice(names)
        stored, kind = file[name], rng.randrange(7)
        if kind == 0:
            del file[name]
        elif kind == 1:
            del file[name]
            file[name] = rng.choice([h5py.SoftLink("/"), h5py.SoftLink(name), h5py.ExternalLink("/dev/zero", "/a")])
        elif kind == 2 and len(stored.attrs):
            key = rng.choice(list(stored.attrs))
            stored.attrs[key] = rng.choice([1, "a", [b"a/b"], np.zeros((2, 2)), [b"../.."], h5py.Empty("f4")])
        elif isinstance(stored, h5py.Dataset):
            values = stored[()]
            del file[name]
            if kind == 3:
                shape = rng.choice([(2**40,), (2**20, 2**20), (0,), (), (10**9, 3, 6, 8)])
                file.create_dataset(name, shape, "u1", chunks=True if 0 not in shape and shape else None)
            elif kind == 4:
                kinds = ("f2", "f8", "i8", "u8", ">f4", "c8", "S3", "?", h5py.string_dtype())
                file.create_dataset(name, np.shape(values), rng.choice(kinds))
            elif kind == 5:
                file[name] = np.full_like(
                    values, rng.choice([0, 1, 255, float("nan")]) if values.dtype.kind == "f" else 1
                )
            else:
                file.create_group(name)
    return path.read_bytes()


@target("cis680", quick=200, weight=2)
def cis680(folder):
    import h5py

    from keras_maskrcnn.data import cis680 as reader

    boxes, labels = np.empty(2, object), np.empty(2, object)
    boxes[:] = [np.array([[0, 0, 4, 4], [2, 2, 6, 6]], np.float32), np.array([[1, 1, 5, 5]], np.float32)]
    labels[:] = [np.array([1, 2]), np.array([3])]
    arrays = {
        "images": np.arange(2 * 3 * 48).reshape(2, 3, 6, 8).astype(np.uint8),
        "masks": np.ones((3, 6, 8), np.uint8),
    }
    for name, values in arrays.items():
        with h5py.File(folder / reader.FILES[name], "w") as file:
            file.create_dataset("data", data=values, compression="gzip", chunks=(1, *values.shape[1:]))
    np.save(folder / reader.FILES["boxes"], boxes, allow_pickle=True)
    np.save(folder / reader.FILES["labels"], labels, allow_pickle=True)

    def change(name, content, rng):
        if name.endswith(".npy"):
            return npy_changed(content, rng)
        return hdf5_changed(folder / name, content, rng) if rng.random() < 0.3 else changes.bytes_changed(content, rng)

    return changed_files(folder, lambda: read_all(lambda: data.Cis680(folder)), change)


def npy_changed(content, rng):
    """A .npy file with a changed header, pickle, or bytes."""
    end = 10 + int.from_bytes(content[8:10], "little")
    head, body = content[:end], content[end:]
    if rng.random() < 0.4 and body.startswith(b"\x80"):
        return head + changes.pickle_changed(body, rng)
    if rng.random() < 0.5:
        text = changes.text_changed(head[10:], rng)[:65535]
        return content[:8] + len(text).to_bytes(2, "little") + text + body
    return changes.bytes_changed(content, rng)


@target("arrays", quick=200, allowed=(DataError,))
def arrays(folder):
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 10, 3), np.uint8)
    ids = np.zeros((2, 8, 10), int)
    ids[:, 1:4, 1:4], ids[0, 5:7, 5:9] = 1, 7
    forms = ids, [ids == 1] * 2, [[[1, 1, 4, 1, 4, 4]], [[(1, 1), (4, 1), (4, 4)]]]
    labels = [[1, 1], [1]], [["a", "b"], ["a"]], None

    def case(rng):
        if rng is None:
            return lambda: read_all(lambda: data.Arrays(images, ids))
        parts = {"images": images, "masks": rng.choice(forms), "labels": rng.choice(labels)}
        names = rng.choice([None, ["a", "b"], ["a"]])
        for name in rng.sample(sorted(parts), rng.choice([1, 1, 2])):
            parts[name] = array_changed(parts[name], rng)
        return lambda: read_all(lambda: data.Arrays(**parts, class_names=names))

    return case


def array_changed(value, rng):
    """An array or a nested list of another dtype, shape or with other values."""
    if not isinstance(value, np.ndarray):
        return (
            changes.tree_changed(value, rng) if isinstance(value, list) and rng.random() < 0.8 else rng.choice(STRANGE)
        )
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(STRANGE)
    if kind == 1:
        return value.astype(rng.choice(["f2", "f8", "i8", "u2", "?", "c8", "O", "U3", "u1"]))
    if kind == 2:
        return rng.choice([value[..., :0], value[:0], value[:, :0], value[0], value[None], value.T, value[..., None]])
    value = value.astype(rng.choice(["f8", "i8"]))
    value.flat[rng.randrange(value.size)] = (
        rng.choice([np.nan, np.inf, -1, 2**31, 1e30]) if value.dtype == "f8" else -(2**62)
    )
    return value


STRANGE = (
    None,
    3,
    "text",
    b"bytes",
    [],
    [[]],
    {},
    [None, None],
    np.zeros(0),
    np.zeros(()),
    np.array(None),
    [b"", 1],
    object,
)


@target("idx", quick=100)
def idx(folder):
    from keras_maskrcnn.data.idx import read_mnist

    images = struct.pack(">4B3I", 0, 0, 8, 3, 4, 3, 3) + bytes(36)
    labels = struct.pack(">4BI", 0, 0, 8, 1, 4) + bytes(4)
    for part, compress in (("a", gzip.compress), ("b", bytes)):
        written(folder / f"{part}-images-idx3-ubyte", compress(images))
        written(folder / f"{part}-labels-idx1-ubyte", compress(labels))

    def change(_, content, rng):
        if content.startswith(b"\x1f\x8b") and rng.random() < 0.5:
            inner = gzip.decompress(content)
            bomb = bytes(10**8) if rng.random() < 0.05 else b""
            return gzip.compress(changes.bytes_changed(inner, rng) + bomb)
        return changes.bytes_changed(content, rng)

    def read():
        for part in "ab":
            read_mnist(folder / f"{part}-images-idx3-ubyte")

    return changed_files(folder, read, change)


@target("tfrecord", quick=150, weight=2)
def tfrecord(folder):
    from keras_maskrcnn.data import tf_record_file

    written_files = data.write_tfrecord(
        data.Shapes(2, image_size=(16, 16), objects=(1, 2), object_size=(6, 10)), folder / "a"
    )
    record = written_files[0].name

    def change(name, content, rng):
        if name != record or rng.random() < 0.3:
            return changes.by_name(name)(content, rng)
        written(folder / "whole", content)
        inner = tf_record_file.contents(folder / "whole")
        (folder / "whole").unlink()
        place = rng.randrange(len(inner))
        inner[place] = changes.protobuf_changed(inner[place], rng)
        with tf_record_file.writer(folder / "new") as write:
            for one in inner:
                write(one)
        content = (folder / "new").read_bytes()
        (folder / "new").unlink()
        return content

    cases = changed_files(folder, lambda: read_all(lambda: data.TfRecord(folder / "a")), change)
    index = next(folder.glob("*.index*"), None)

    def case(rng):
        read = cases(rng)
        if rng is not None and index and rng.random() < 0.7:  # it would state the former lengths
            removed(index)
        elif index and not index.is_file():
            removed(index)
            index.write_bytes(kept)
        return read

    kept = index.read_bytes() if index else b""
    return case


@target("video", quick=40)
def video(folder):
    from keras_maskrcnn.data.video import VideoWriter, frames

    writer = VideoWriter(folder / "a.mp4", 10)
    for number in range(4):
        writer.add(np.full((16, 32, 3), 40 * number, np.uint8))
    writer.close()

    def read():
        for _ in zip(range(200), frames(folder / "a.mp4"), strict=False):
            pass

    return changed_files(folder, read)
