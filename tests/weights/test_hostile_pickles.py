"""Pickles that would execute code, in all formats that contain pickles: rejected with one line, nothing executed."""

import functools
import importlib.util
import os
import pathlib
import pickle
import re
import zipfile

import numpy as np
import pytest

from keras_maskrcnn.weights import files

spec = importlib.util.spec_from_file_location("torch_writer", pathlib.Path(__file__).with_name("torch_writer.py"))
torch_writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_writer)
Call, Name, tensor = torch_writer.Call, torch_writer.Name, torch_writer.tensor
both_formats = pytest.mark.parametrize("write", [torch_writer.write_zip, torch_writer.write_legacy])


def rejection(path):
    """The reason in the error for a file, after a check that the message is one line."""
    with pytest.raises(files.DataError) as caught:
        files.read(path)
    assert "\n" not in str(caught.value)
    return caught.value.reason


class Attack:
    """An object that pickles to a call that creates a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(canary):
    """Objects whose unpickling would create the file `canary`, and a pattern of the global that each refers to."""
    code = f"open({str(canary)!r}, 'w')"
    yield Attack(os.system, f"touch {canary}"), r"(posix|nt)\.system"
    yield Attack(eval, code), r"(builtins|__builtin__)\.eval"
    yield Attack(functools.partial(open, str(canary), "w")), r"functools\.partial"
    yield Attack(pathlib.Path.touch, canary), r"getattr|pathlib"


def test_the_attacks_are_real(tmp_path):
    for hostile, _ in attacks(tmp_path / "canary"):
        pickle.loads(pickle.dumps(hostile))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("attack", range(4))
@pytest.mark.parametrize("wrap", ["pickle", "zip", "legacy"])
def test_nothing_is_executed(tmp_path, attack, protocol, wrap):
    canary, path = tmp_path / "canary", tmp_path / "w.pth"
    hostile, named = list(attacks(canary))[attack]
    body = pickle.dumps({"model": {}, "epoch": [hostile]}, protocol)
    if wrap == "pickle":
        path.write_bytes(body)
    elif wrap == "legacy":
        head = [torch_writer.MAGIC, torch_writer.PROTOCOL, {}]
        path.write_bytes(b"".join(pickle.dumps(value, protocol) for value in head) + body)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", body)
    reason = rejection(path)
    assert re.search(f"its pickle refers to '.*({named})", reason), reason
    assert not canary.exists()


@both_formats
def test_an_unknown_class_next_to_the_weights(tmp_path, write):
    write(tmp_path / "w.pth", {"model": {"w": tensor(np.ones(3))}, "config": Call(Name("yacs.config.CfgNode"), ())})
    assert "refers to 'yacs.config.CfgNode'" in rejection(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Call(Name("torch.FloatStorage"), ()), "calls torch.FloatStorage"),
        (Call(Name("collections.OrderedDict"), ([[((),), 1]],)), "not a dict with scalar keys"),
        (Call(Name("torch._utils._rebuild_tensor_v2"), (1, 0, (), ())), "not a plain view"),
        (Call(Name("torch._utils._rebuild_tensor_v2"), (), {"__code__": None}), "is damaged"),
        (Call("text", ()), "not a function"),
        (Call(Name("torch.Size"), ((1,),), {"state": 1}), "sets the state"),
    ],
)
def test_invalid_calls(tmp_path, value, reason):
    torch_writer.write_zip(tmp_path / "w.pth", {"w": value})
    assert reason in rejection(tmp_path / "w.pth")
