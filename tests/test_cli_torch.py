"""`KERAS_BACKEND=torch`: `info`, and training and detection where torch is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FIT_AND_PREDICT = """
import keras, numpy as np
from keras_maskrcnn import MaskRCNN, data

shapes = data.Shapes(4, image_size=(64, 64), seed=1)
model = MaskRCNN(
    3,
    {"name": "resnet10", "width": 8, "norm": "group"},
    fpn_channels=16,
    proposals={"pre_nms": 32, "post_nms": 16},
    rpn_sampling={"size": 16},
    box_sampling={"size": 16},
    box_stage={"width": 16},
    mask_stage={"width": 8, "depth": 1},
)
batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, backend="numpy")
model.compile(keras.optimizers.SGD(1e-3))
before = [weight.copy() for weight in model.get_weights()]
history = model.fit(batches, epochs=1, verbose=0).history
assert keras.backend.backend() == "torch" and np.isfinite(history["loss"]).all()
assert any((old != new).any() for old, new in zip(before, model.get_weights()))
found = model.detect(shapes[0]["image"], score_threshold=0.0)
assert len(found["scores"]) and found["masks"].shape[1:] == (64, 64)
"""
torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def run(*arguments, **environment):
    folders = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": folders, **environment}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def test_a_backend_that_is_not_installed_is_named(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = run("-m", "keras_maskrcnn", "info", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 2
    assert done.stderr == "error: torch is not installed, and KERAS_BACKEND=torch needs it\n"


def test_info_on_a_backend_whose_devices_keras_does_not_list(monkeypatch, capsys):
    import keras

    from keras_maskrcnn.cli import main

    monkeypatch.setattr("keras.src.distribution.distribution_lib.distribution_lib", None)  # as it is on torch
    with pytest.raises(AttributeError):
        keras.distribution.list_devices()
    assert main(["info"]) == 0
    assert "devices                 not listed by Keras on this backend" in capsys.readouterr().out


@torch
def test_info():
    done = run("-m", "keras_maskrcnn", "info")
    assert done.returncode == 0 and "torch" in done.stdout, done.stderr


@torch
def test_a_model_trains_and_detects():
    done = run("-c", FIT_AND_PREDICT)
    assert done.returncode == 0, done.stderr[-2000:]
