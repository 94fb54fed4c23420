"""Weight files and pickles that are small on disk and large in memory, or slow: refused before memory is taken."""

import importlib.util
import io
import pathlib
import resource
import struct
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from keras_maskrcnn.pickles import npy, safe_pickle
from keras_maskrcnn.weights import files

spec = importlib.util.spec_from_file_location("torch_writer", pathlib.Path(__file__).with_name("torch_writer.py"))
torch_writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_writer)

MEMORY = 2**30  # bytes of address space of a reading process
SECONDS = 10  # of a reading process, of which starting it takes one
READ = """
import sys, types
package = types.ModuleType("keras_maskrcnn.weights")  # without the parts that import TensorFlow
package.__path__ = [sys.argv[1]]
sys.modules[package.__name__] = package
from keras_maskrcnn.weights import files
for path in sys.argv[2:]:
    try:
        print(len(files.read(path)), "arrays")
    except files.DataError as error:
        print(error.reason)
"""


def rejections(*paths):
    """The reasons that a process with limited memory and time prints."""
    folder = pathlib.Path(files.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", READ, folder, *paths],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        env={"PYTHONPATH": str(folder.parents[1]), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert "MemoryError" not in done.stdout
    return done.stdout.splitlines()


def rejection(path):
    """The reason for one file."""
    (reason,) = rejections(path)
    return reason


def nested(levels, inside=b"K\x01\x85"):
    """Instructions for a tuple whose text doubles with each of many levels."""
    return inside + b"".join(b"q%c" % level + b"h%c" % level + b"\x86" for level in range(levels))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
FLOATS = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87RK\x00"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQK\x00"


SHAPES = [
    nested(40),
    b"(J\x00\x00\x00\x10(Ntt",
    b"(\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6 + b"t",
    b"(" + b"K\x01" * 100 + b"t",
    b"K\x01",
]


def test_nested_shapes_and_names(tmp_path):
    state = b"cnumpy\ndtype\nU\x02f4\x85RI00\nU\x00tb"
    values = [ARRAY + shape + state for shape in SHAPES]
    values += [b"cnumpy\ndtype\n" + nested(40) + b"\x85R", b"c_codecs\nencode\nU\x00" + nested(40) + b"\x86R"]
    values += [
        nested(40) + b"U\x01a\x93",
        ARRAY + b")cnumpy\ndtype\nU\x02f4\x85R(K\x03" + nested(40) + b"tbI00\nU\x00tb",
    ]
    paths = [tmp_path / f"{number}.pkl" for number in range(len(values))]
    for path, value in zip(paths, values, strict=True):
        path.write_bytes(b"\x80\x02}U\x01w" + value + b"s.")
    for reason in rejections(*paths):
        assert reason.startswith(("contains an array", "its pickle"))


def test_nested_shapes_of_tensors(tmp_path):
    layouts = [layout for shape in SHAPES for layout in (shape + b")", b")" + shape)]
    paths = [tmp_path / f"{number}.pth" for number in range(len(layouts))]
    for path, layout in zip(paths, layouts, strict=True):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}U\x01w" + TENSOR + layout + b"\x89NtRs.")
            archive.writestr("archive/data/0", bytes(4))
    for reason in rejections(*paths):
        assert reason.startswith(("w: a tensor ", "a tensor "))


def test_a_text_that_is_encoded_again_and_again(tmp_path):
    text = b"X" + struct.pack("<I", 10**7) + b"a" * 10**7 + b"q\x00"
    encode = b"c_codecs\nencode\nq\x01U\x06latin1q\x02"
    again = b"h\x01h\x00h\x02\x86R" * 1000
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02(" + text + encode + again + b"l.")
    assert "more than" in rejection(tmp_path / "w.pkl")
    state = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x03"
    again = b"h\x03(h\x01h\x01h\x00h\x02\x86NtR" * 1000
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02(" + text + encode + state + again + b"l.")
    assert "its pickle" in rejection(tmp_path / "w.pth")


def test_pairs_that_become_a_dict_again_and_again(tmp_path):
    pairs = b"](" + b"".join(b"J" + struct.pack("<i", n) + b"N\x86" for n in range(100_000)) + b"eq\x00"
    again = b"h\x01h\x00\x85R" * 1000
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02(ccollections\nOrderedDict\nq\x01" + pairs + again + b"l.")
    assert "more than" in rejection(tmp_path / "w.pth")


def test_the_limit_of_copies_can_be_set(monkeypatch):
    body = b"\x80\x02(X\x08\x00\x00\x00abcdefghq\x00" + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 3 + b"l."
    names = {"_codecs.encode": lambda text, encoding: text.encode(encoding)}
    assert safe_pickle.load(io.BytesIO(body), names) == ["abcdefgh"] + [b"abcdefgh"] * 3
    monkeypatch.setattr(safe_pickle, "MAX_COPIES", 0.1)
    monkeypatch.setattr(safe_pickle, "FREE_BYTES", 0)
    with pytest.raises(safe_pickle.UnreadableError, match=r"more than .*MAX_COPIES = 0\.1 times"):
        safe_pickle.load(io.BytesIO(body), names)


def test_one_array_as_many_entries(tmp_path, monkeypatch):
    array = np.zeros(1000, np.float32)
    entries = np.empty(50, object)
    entries[:] = [array] * 50
    np.save(tmp_path / "a.npy", entries, allow_pickle=True)
    assert len(npy.read_objects(tmp_path / "a.npy")) == 50
    monkeypatch.setattr(npy, "MAX_BYTES", 50 * array.nbytes - 1)
    with pytest.raises(npy.UnreadableFileError, match=r"more than .*MAX_BYTES = 199999"):
        npy.read_objects(tmp_path / "a.npy")


def test_zip_entries_that_overlap(tmp_path):
    size = 10**6
    path = tmp_path / "w.pth"
    tensors = {
        str(key): torch_writer.Tensor(np.zeros(size, np.uint16), "bfloat16", 0, (size,), (1,)) for key in range(2)
    }
    torch_writer.write_zip(path, tensors)
    assert len(files.read(path)) == 2
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = archive.getinfo("archive/data/0").header_offset
    place = content.rindex(b"archive/data/1") - 46  # in the central directory
    content[place + 42 : place + 46] = struct.pack("<I", first)
    path.write_bytes(content)
    assert "overlaps" in rejection(path)


def write_h5(path, change, names=(b"conv1/kernel:0",)):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = list(names)
        change(file, group)


def linked(file, group):
    inner = group.create_group("conv1")
    inner["0"] = np.zeros(10**6, np.uint8)
    for number in range(1, 3000):
        inner[str(number)] = inner["0"]


def test_one_h5_array_under_many_names(tmp_path):
    write_h5(tmp_path / "w.h5", linked, [f"conv1/{number}".encode() for number in range(3000)])
    assert "more numbers than the file has bytes" in rejection(tmp_path / "w.h5")


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/kernel"), h5py.SoftLink("/conv1")], ids=str)
@pytest.mark.parametrize("place", ["conv1/kernel:0", "conv1"])
def test_h5_links_are_not_followed(tmp_path, link, place):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kernel/kernel:0"] = np.zeros(3)

    def change(_, group):
        group[place] = link

    write_h5(tmp_path / "w.h5", change)
    assert "is a link to another place" in rejection(tmp_path / "w.h5")


def test_an_h5_model_in_another_file(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/")
    assert "is a link to another place" in rejection(tmp_path / "w.h5")
