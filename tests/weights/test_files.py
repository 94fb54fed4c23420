"""Reading of all formats of weight files."""

import importlib.util
import json
import pathlib
import pickle
import sys

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_maskrcnn.weights import files

HERE = pathlib.Path(__file__).parent
spec = importlib.util.spec_from_file_location("torch_writer", HERE / "torch_writer.py")
torch_writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_writer)
Call, Name, Tensor, ordered, tensor = (
    getattr(torch_writer, name) for name in ("Call", "Name", "Tensor", "ordered", "tensor")
)
both_formats = pytest.mark.parametrize("write", [torch_writer.write_zip, torch_writer.write_legacy])
KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 4
BFLOAT16 = np.array([0x3F80, 0xC020, 0x7F80], np.uint16)  # 1, -2.5, infinity


def assert_arrays(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].dtype.isnative, name
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("file", ["torch_zip.pth", "torch_legacy.pth"])
def test_a_file_that_torch_wrote(file):
    weight, bias = np.arange(6, dtype=np.float32).reshape(2, 3) / 4, np.array([-0.5, 0.25], np.float32)
    wanted = {
        "weight": weight,
        "bias": bias,
        "transposed": weight.T,
        "column": weight[:, 1],
        "parameter": bias,
        "half": np.arange(4, dtype=np.float16) / 4,
        "bfloat16": np.arange(4, dtype=np.float32).reshape(2, 2) / 4,
        "count": np.array(7),
    }
    assert_arrays(files.read(HERE.parent / "golden" / file), wanted)


@both_formats
@pytest.mark.parametrize("kind", [kind for kind in torch_writer.STORAGES if kind != "bfloat16"])
def test_torch_dtypes(tmp_path, write, kind):
    arrays = {"one": np.array([[1, 0], [3, 100]]).astype(kind), "two": np.array(1).astype(kind)}
    write(tmp_path / "w.pth", {name: tensor(array) for name, array in arrays.items()})
    assert_arrays(files.read(tmp_path / "w.pth", "torchvision"), arrays)


@both_formats
def test_torch_bfloat16_is_read_as_float32(tmp_path, write):
    write(tmp_path / "w.pth", {"w": tensor(BFLOAT16, "bfloat16")})
    assert_arrays(files.read(tmp_path / "w.pth"), {"w": np.array([1, -2.5, np.inf], np.float32)})


@both_formats
def test_torch_views_of_one_storage(tmp_path, write):
    storage = KERNEL.ravel()
    views = {
        "whole": Tensor(storage, "float32", 0, (2, 3, 4), (12, 4, 1)),
        "swapped": Tensor(storage, "float32", 0, (4, 3, 2), (1, 4, 12)),
        "part": Tensor(storage, "float32", 13, (3,), (4,)),
        "nothing": Tensor(storage, "float32", 24, (0, 4), (4, 1)),
    }
    write(tmp_path / "w.pth", views)
    wanted = {"whole": KERNEL, "swapped": KERNEL.T, "part": KERNEL[1, :, 1], "nothing": np.zeros((0, 4), np.float32)}
    found = files.read(tmp_path / "w.pth")
    assert_arrays(found, wanted)
    assert np.shares_memory(found["whole"], found["swapped"])


def test_torch_arrays_are_views_of_the_file(tmp_path):
    torch_writer.write_zip(tmp_path / "w.pth", {"w": tensor(np.zeros(1000, np.uint8))})
    array = files.read(tmp_path / "w.pth")["w"]
    assert not array.flags.writeable and not array.flags.owndata


def test_torch_big_endian(tmp_path):
    torch_writer.write_zip(tmp_path / "w.pth", {"w": tensor(KERNEL), "b": tensor(BFLOAT16, "bfloat16")}, "big")
    assert_arrays(files.read(tmp_path / "w.pth"), {"w": KERNEL, "b": np.array([1, -2.5, np.inf], np.float32)})


@both_formats
def test_torch_parameters_and_metadata(tmp_path, write):
    rebuild, of_type = Name("torch._utils._rebuild_parameter"), Name("torch._tensor._rebuild_from_type_v2")
    parameter = (tensor(KERNEL), True, ordered({}))
    state = {
        "parameter": Call(rebuild, parameter),
        "attributed": Call(of_type, (rebuild, Name("torch.nn.parameter.Parameter"), parameter, {"tag": 1})),
    }
    write(tmp_path / "w.pth", ordered(state, {"_metadata": ordered({"": {"version": 1}})}))
    assert_arrays(files.read(tmp_path / "w.pth"), dict.fromkeys(state, KERNEL))


@both_formats
@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_torch_checkpoints_give_the_weights_only(tmp_path, write, wrapper):
    checkpoint = {
        "optimizer": {"state": {0: {"step": tensor(np.ones(1))}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        wrapper: ordered({"w": tensor(KERNEL), "version": 2}),
        "milestones": Call(Name("collections.Counter"), ({16: 1},)),
        "args": Call(Name("argparse.Namespace"), (), {"device": Call(Name("torch.device"), ("cuda",))}),
        "size": Call(Name("torch.Size"), ((1, 2),)),
        "best": tensor(np.ones(1)),
    }
    write(tmp_path / "w.pth", checkpoint)
    assert_arrays(files.read(tmp_path / "w.pth"), {"w": KERNEL})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_detectron2_pickle(tmp_path, protocol):
    arrays = {"w": KERNEL, "fortran": np.asfortranarray(KERNEL[0]), "big": KERNEL.astype(">f4"), "n": np.array(3)}
    checkpoint = {"model": arrays, "__author__": "someone", "matching_heuristics": True, "best": np.float64(0.5)}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(checkpoint, protocol))
    wanted = {**arrays, "big": KERNEL}
    assert_arrays(files.read(tmp_path / "w.pkl", "detectron2"), wanted)


def test_detectron2_pickle_of_python_2(tmp_path):
    number = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x02t" + number
    data = np.array([-1.5, 3e7], np.float32)  # with bytes that are not ASCII
    text = b"\x80\x02}U\x05model}U\x01w" + array + b"\x89U\x08" + data.tobytes() + b"tbss."
    assert pickle.loads(text, encoding="latin1")["model"]["w"].tolist() == data.tolist()
    (tmp_path / "w.pkl").write_bytes(text)
    assert_arrays(files.read(tmp_path / "w.pkl"), {"w": data})


def test_safetensors(tmp_path):
    arrays = {"b": KERNEL, "a": np.arange(3), "half": np.ones(3, np.float16), "yes": np.array([True, False])}
    save_file(arrays, tmp_path / "w.safetensors")
    found = files.read(tmp_path / "w.safetensors", "torchvision")
    assert_arrays({name: found[name] for name in arrays}, arrays)


def test_safetensors_bfloat16_is_read_as_float32(tmp_path):
    header = {"one": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    header["two"] = {"dtype": "F32", "shape": [2, 3, 4], "data_offsets": [6, 102]}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + BFLOAT16.tobytes() + KERNEL.tobytes()
    (tmp_path / "w.safetensors").write_bytes(content)
    wanted = {"one": np.array([1, -2.5, np.inf], np.float32), "two": KERNEL}
    assert_arrays(files.read(tmp_path / "w.safetensors"), wanted)


def write_h5(path, layers, below=None):
    """Writes a weight file of Keras 2 from {layer: {weight name: array}}, with names as fixed-length strings."""
    with h5py.File(path, "w") as file:
        root = file.create_group(below) if below else file
        root.attrs["layer_names"] = np.array(list(layers), "S")
        for layer, weights in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array(list(weights), "S")
            for name, array in weights.items():
                group[name] = array


@pytest.mark.parametrize("below", [None, "model_weights"])
def test_matterport_h5(tmp_path, below):
    layers = {
        "conv1": {"conv1/kernel:0": KERNEL, "conv1/bias:0": KERNEL[0, 0]},
        "activation": {},
        "rpn_model": {"rpn_conv_shared/kernel:0": KERNEL, "outer/rpn_class_raw/bias:0": KERNEL[0, 1]},
        "plain": {"kernel:0": KERNEL.astype(">f8")},
    }
    write_h5(tmp_path / "w.h5", layers, below)
    wanted = {
        "conv1/kernel:0": KERNEL,
        "conv1/bias:0": KERNEL[0, 0],
        "rpn_conv_shared/kernel:0": KERNEL,
        "rpn_class_raw/bias:0": KERNEL[0, 1],
        "plain/kernel:0": KERNEL.astype("f8"),
    }
    assert_arrays(files.read(tmp_path / "w.h5", "matterport"), wanted)


def test_h5_lists_of_names_in_parts(tmp_path):
    write_h5(tmp_path / "w.h5", {name: {f"{name}/kernel:0": KERNEL} for name in "abc"})
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a", b"b"], [b"c"]
        del file.attrs["layer_names"]
    assert list(files.read(tmp_path / "w.h5")) == ["a/kernel:0", "b/kernel:0", "c/kernel:0"]


@pytest.mark.parametrize("package", ["h5py", "safetensors"])
def test_a_missing_package_is_reported(tmp_path, monkeypatch, package):
    write_h5(tmp_path / "h5py", {"conv1": {"conv1/kernel:0": KERNEL}})
    save_file({"w": KERNEL}, tmp_path / "safetensors")
    monkeypatch.setitem(sys.modules, package, None)
    message = rf'requires the package {package}: pip install "keras3-maskrcnn\[convert\]"'
    with pytest.raises(files.DataError, match=message):
        files.read(tmp_path / package)


def test_the_format_depends_on_the_content_not_the_suffix(tmp_path):
    save_file({"w": KERNEL}, tmp_path / "w.pth")
    assert_arrays(files.read(str(tmp_path / "w.pth")), {"w": KERNEL})
