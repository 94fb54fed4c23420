"""Damaged weight files and other files: error messages of one line."""

import importlib.util
import io
import pathlib
import pickle
import re
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from keras_maskrcnn.weights import files

spec = importlib.util.spec_from_file_location("torch_writer", pathlib.Path(__file__).with_name("torch_writer.py"))
torch_writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_writer)
Tensor, tensor = torch_writer.Tensor, torch_writer.tensor
both_formats = pytest.mark.parametrize("write", [torch_writer.write_zip, torch_writer.write_legacy])
NUMBERS = np.arange(6, dtype=np.float32)


def rejection(path, source=None):
    """The reason in the error for a file, after a check that the message is one line with the file's name."""
    with pytest.raises(files.DataError) as caught:
        files.read(path, source)
    assert str(caught.value) == f"{path}: {caught.value.reason}" and "\n" not in str(caught.value)
    return caught.value.reason


def write_h5(path, layers=("conv1",), weights=("conv1/kernel:0",)):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        file.create_group("conv1").attrs["weight_names"] = [name.encode() for name in weights]
        file["conv1"]["conv1/kernel:0"] = NUMBERS


def write_safetensors(path):
    save_file({"a": NUMBERS, "b": NUMBERS}, path)


def write_torch_zip(path):
    torch_writer.write_zip(path, {"a": tensor(NUMBERS), "b": tensor(NUMBERS[1:])})


def write_torch_legacy(path):
    torch_writer.write_legacy(path, {"a": tensor(NUMBERS), "b": tensor(NUMBERS[1:])})


def write_detectron2(path):
    path.write_bytes(pickle.dumps({"model": {"a": NUMBERS, "b": NUMBERS[1:]}}, 4))


WRITERS = [write_torch_zip, write_torch_legacy, write_detectron2, write_safetensors, write_h5]


@both_formats
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"first": 1}, "does not fit"),
        ({"first": -1}, "shape"),
        ({"strides": (-3, 1)}, "shape"),
        ({"strides": (4, 1)}, "does not fit"),
        ({"strides": (1,)}, "shape"),
        ({"shape": (3, 3)}, "does not fit"),
        ({"shape": (2**31 - 1,) * 2, "strides": (0, 0)}, "does not fit"),
        ({"declared": 2**31 - 1}, "declares"),
        ({"declared": 5}, "does not fit|declares"),
        ({"declared": -1}, "invalid size"),
        ({"kind": "float64"}, "declares"),
    ],
)
def test_torch_views_outside_their_storage(tmp_path, write, changed, reason):
    view = {"storage": NUMBERS, "kind": "float32", "first": 0, "shape": (2, 3), "strides": (3, 1), **changed}
    write(tmp_path / "w.pth", {"w": Tensor(**view)})
    assert re.search(reason, rejection(tmp_path / "w.pth"))


def test_zip_archives_not_written_by_torch(tmp_path):
    path = tmp_path / "w.pth"
    np.savez(tmp_path / "w.npz", a=NUMBERS)
    assert "without torch's data.pkl" in rejection(tmp_path / "w.npz")
    torch_writer.write_zip(path, {"w": tensor(np.zeros(10**6))}, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in rejection(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", torch_writer.pickled({"w": tensor(NUMBERS)})[0])
    assert "w: its storage '0' has no data" in rejection(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\n <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"\x00\x01", "starts with"),
        (b"PK\x03\x04", "is damaged or incomplete (BadZipFile"),
        (pickle.dumps({"blobs": {"conv1_w": 1}}, 2), "contains no named weights, at the top or under"),
        (pickle.dumps([1, 2], 2), "contains a list, not a dict of weights"),
        (pickle.dumps({"model": {"w": np.array(["text"])}}, 4), "not a numeric dtype"),
        (pickle.dumps({"model": {"w": np.array([None])}}, 4), "not a numeric dtype"),
        (pickle.dumps({1, 2}, 4), "EMPTY_SET"),
        (b"\x80\x02}q\x00r\xff\xff\xff\x7f", "is damaged"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", "is damaged"),
    ],
)
def test_contents_other_than_weights(tmp_path, content, reason):
    (tmp_path / "w.pth").write_bytes(content)
    assert reason in rejection(tmp_path / "w.pth")


def test_paths_without_a_file(tmp_path):
    assert rejection(tmp_path / "w.pth") == "no such file"
    assert rejection(tmp_path) == "is a folder, not a file"


def test_h5_files_without_numeric_weights(tmp_path):
    path = tmp_path / "w.h5"
    h5py.File(path, "w").close()
    assert "no layer_names" in rejection(path)
    write_h5(path, layers=["conv1", "conv1"])
    assert "two weights called conv1/kernel:0" in rejection(path)
    write_h5(path, weights=["conv1/bias:0"])
    assert "is damaged or incomplete (KeyError" in rejection(path)
    write_h5(path, weights=["conv1"])
    assert "not a numeric array" in rejection(path)
    for replace, reason in [
        (lambda group: group.create_dataset("kernel:0", (2**30, 2**20), "f4", chunks=(1, 1)), "0 bytes"),
        (lambda group: group.create_dataset("kernel:0", data=["text"]), "not a numeric array"),
        (lambda group: group.create_dataset("kernel:0", (2,), "f4", external=[("/etc/hosts", 0, 8)]), "another file"),
    ]:
        write_h5(path)
        with h5py.File(path, "a") as file:
            del file["conv1/conv1/kernel:0"]
            replace(file["conv1/conv1"])
        assert reason in rejection(path)


def test_a_format_that_a_source_does_not_use(tmp_path):
    write_torch_zip(tmp_path / "w.h5")
    assert rejection(tmp_path / "w.h5", "matterport") == "is a torch zip file; weights of matterport are h5 files"
    with pytest.raises(ValueError, match="source 'tensorpack' is not one of torchvision, detectron2, matterport"):
        files.read(tmp_path / "w.h5", "tensorpack")


@pytest.mark.parametrize("write", WRITERS)
def test_truncated_files(tmp_path, write):
    write(tmp_path / "whole")
    assert files.read(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for size in np.linspace(1, len(content) - 1, 40).astype(int):
        (tmp_path / "cut").write_bytes(content[:size])
        assert rejection(tmp_path / "cut")


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """A folder, and the bytes of a valid file of every format except HDF5, whose C library is not tested here."""
    folder = tmp_path_factory.mktemp("files")
    for write in WRITERS[:4]:
        write(folder / write.__name__)
    return folder, [(folder / write.__name__).read_bytes() for write in WRITERS[:4]]


def read_or_reject(path, content):
    path.write_bytes(content)
    try:
        arrays = files.read(path)
    except files.DataError as error:
        assert "\n" not in str(error)
    else:
        assert sum(array.size for array in arrays.values()) <= len(content)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(start=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x10" + bytes(7) + b"{"]), rest=st.binary(max_size=80))
def test_arbitrary_bytes_raise_at_most_a_data_error(contents, start, rest):
    read_or_reject(contents[0] / "any", start + rest)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(which=st.integers(0, 3), changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=6)), max_size=3))
def test_arbitrary_changes_raise_at_most_a_data_error(contents, which, changes):
    buffer = io.BytesIO(contents[1][which])
    for place, change in changes:
        buffer.seek(place % len(contents[1][which]))
        buffer.write(change)
    read_or_reject(contents[0] / "changed", buffer.getvalue())
