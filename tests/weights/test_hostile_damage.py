"""Damaged weight files whose structure is intact: changed bytes and numbers that are not finite."""

import importlib.util
import os
import pathlib
import zipfile

import h5py
import numpy as np
import pytest

from keras_maskrcnn.data import DataError
from keras_maskrcnn.pickles import npy
from keras_maskrcnn.weights import files, keras_file

spec = importlib.util.spec_from_file_location("torch_writer", pathlib.Path(__file__).with_name("torch_writer.py"))
torch_writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_writer)
NUMBERS = np.array([1, 2, 3, 4], np.float32)


def rejection(function, path):
    with pytest.raises(DataError) as caught:
        function(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return caught.value.reason


def flipped(path, sequence):
    """Flips one bit of the first byte of a sequence in a file."""
    content = bytearray(path.read_bytes())
    content[content.index(sequence)] ^= 1
    path.write_bytes(content)


def test_a_torch_storage_that_changed(tmp_path):
    path = tmp_path / "w.pth"
    torch_writer.write_zip(path, {"a": torch_writer.tensor(NUMBERS), "b": torch_writer.tensor(NUMBERS + 1)})
    flipped(path, NUMBERS.tobytes())
    assert rejection(files.read, path) == "a: its storage '0' is damaged (checksum)"
    torch_writer.write_zip(path, {"a": torch_writer.tensor(NUMBERS)})
    flipped(path, b"FloatStorage")
    assert rejection(files.read, path) == "its entry 'archive/data.pkl' is damaged (checksum)"


def test_torch_files_without_checksums(tmp_path):
    path = tmp_path / "w.pth"
    torch_writer.write_zip(path, {"a": torch_writer.tensor(NUMBERS)})
    with zipfile.ZipFile(path) as archive:
        codes = [entry.CRC.to_bytes(4, "little") for entry in archive.infolist()]
    content = path.read_bytes()
    for code in codes:
        content = content.replace(code, bytes(4))
    path.write_bytes(content)
    np.testing.assert_array_equal(files.read(path)["a"], NUMBERS)


def test_a_heap_of_texts_at_which_hdf5_does_not_end(tmp_path):
    """HDF5 1.14 walks in place where an entry of free space has no size."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs.create("layer_names", ["conv1"], dtype=h5py.string_dtype())
        file["conv1/kernel:0"] = NUMBERS
        file["conv1"].attrs.create("weight_names", ["kernel:0"], dtype=h5py.string_dtype())
    np.testing.assert_array_equal(files.read(path)["conv1/kernel:0"], NUMBERS)
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL") + 16
    while int.from_bytes(content[place : place + 2], "little"):  # entries with a text, each padded to eight bytes
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    content[place + 8 : place + 16] = bytes(8)
    path.write_bytes(content)
    assert "has free space of 0 bytes" in rejection(files.read, path)


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("place", ["layer_names", "weight_names"])
def test_a_length_of_a_text_for_which_hdf5_takes_gigabytes(tmp_path, version, place):
    path, layer, weight = tmp_path / "w.h5", "l" * 37, "w" * 41
    with h5py.File(path, "w", libver=version) as file:
        file.attrs["layer_names"] = [layer.encode()]  # a list, which Keras hands to h5py: of variable length
        group = file.create_group(layer)
        group.attrs["weight_names"] = [weight.encode()]
        group[weight] = NUMBERS
    np.testing.assert_array_equal(files.read(path)[f"{layer}/{weight}"], NUMBERS)
    content = bytearray(path.read_bytes())
    length = len(layer if place == "layer_names" else weight).to_bytes(4, "little")
    content[content.index(length, content.index(place.encode() + b"\0")) + 3] = 0xDD
    path.write_bytes(content)
    assert rejection(files.read, path) == "is damaged: its lists of names are longer than the file"


@pytest.mark.skipif(h5py.version.hdf5_version_tuple >= (2,), reason="mended in HDF5 2.0")
def test_a_damaged_list_of_links_at_which_hdf5_crashes(tmp_path):
    path = tmp_path / "w.weights.h5"
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        for number in range(20):
            file[f"group/{number}"] = NUMBERS
    keras_file.check(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"BTLF") + 20] ^= 1  # the checksum of the list does not fit
    path.write_bytes(content)
    assert rejection(keras_file.check, path) == "is damaged: HDF5 crashed when it looked at all that is in the file"


def test_compressed_weights_are_refused(tmp_path):
    """HDF5 1.14 takes the size of what they unpack to from the file."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        group = file.create_group("conv")
        group.attrs["weight_names"] = [b"kernel:0"]
        group.create_dataset("kernel:0", data=NUMBERS, compression="gzip", chunks=NUMBERS.shape)
    assert rejection(files.read, path) == "conv/kernel:0 is compressed, which Keras does not do"


def test_a_list_that_repeats_one_long_text(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"x" * 30_000, *(b"y%d" % number for number in range(2000))]
    content = bytearray(path.read_bytes())
    start = content.index((30_000).to_bytes(4, "little"), content.index(b"layer_names\0"))
    content[start : start + 16 * 2001] = content[start : start + 16] * 2001
    path.write_bytes(content)
    assert rejection(files.read, path) == "is damaged: its lists of names are longer than the file"


def test_a_pipe_as_array_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(npy.UnreadableFileError, match=r"a\.npy: is not a regular file"):
        npy.read_objects(tmp_path / "a.npy")


def write_keras(path, numbers=NUMBERS):
    """A `.weights.h5` or `.keras` file as far as they are checked."""
    weights = path.with_suffix(".h5")
    with h5py.File(weights, "w") as file:
        file["layers/conv/vars/0"] = numbers
        file["layers/conv/vars/1"] = np.arange(3)
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.write(weights, "model.weights.h5")


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_keras_files(tmp_path, name):
    path = tmp_path / name
    assert rejection(keras_file.check, path) == "no such file"
    write_keras(path)
    keras_file.check(path)
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:size])
        assert rejection(keras_file.check, path)
    for value in (np.nan, np.inf):
        write_keras(path, np.array([1, value], np.float16))
        assert rejection(keras_file.check, path) == "layers/conv/vars/0 has numbers that are not finite"
    path.write_text("text")
    assert rejection(keras_file.check, path).startswith("is damaged or no ")


def test_a_keras_file_with_a_changed_byte(tmp_path):
    path = tmp_path / "m.keras"
    write_keras(path)
    flipped(path, NUMBERS.tobytes())
    assert rejection(keras_file.check, path) == "is damaged: the checksum of model.weights.h5 does not fit"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    assert rejection(keras_file.check, path) == "is no .keras file: it has no model.weights.h5"


def test_a_model_with_nan(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    for name, save in (("m.keras", model.save), ("m.weights.h5", model.save_weights)):
        save(tmp_path / name)
        keras_file.check(tmp_path / name)
    model.layers[0].kernel.assign(np.full((2, 3), np.nan))
    for name, save in (("m.keras", model.save), ("m.weights.h5", model.save_weights)):
        save(tmp_path / name)
        assert "not finite" in rejection(keras_file.check, tmp_path / name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda config: config["config"].update(units=-1), "cannot be loaded"),
        (lambda config: config.update(config=3), "cannot be loaded"),
        (
            lambda config: config.update(module="subprocess", class_name="Popen", registered_name=None),
            "cannot be loaded",
        ),
        (lambda config: config.clear(), "cannot be loaded"),
    ],
)
def test_a_changed_configuration_is_one_line(tmp_path, change, reason):
    """Keras' own messages have many lines, and exceptions of any class."""
    import json

    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(tmp_path / "m.keras", "w") as changed:
        for name in whole.namelist():
            content = whole.read(name)
            if name == "config.json":
                tree = json.loads(content)
                change(tree["config"]["layers"][1])
                content = json.dumps(tree).encode()
            changed.writestr(name, content)
    assert reason in rejection(keras_file.load, tmp_path / "m.keras")


def test_a_keras_file_without_configuration(tmp_path):
    write_keras(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("model.weights.h5", weights)
    assert "cannot be loaded (KeyError" in rejection(keras_file.load, tmp_path / "m.keras")
