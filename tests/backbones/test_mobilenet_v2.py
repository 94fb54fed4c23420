"""MobileNetV2: torchvision's sizes and features, padding, freezing, saving, JAX, compilation."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backbones
from keras_maskrcnn.backbones import MobileNetV2
from keras_maskrcnn.receptive_field import reach

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
NARROW = {"width": 8, "last_conv": False}


@pytest.fixture(scope="module")
def narrow():
    """A network with a quarter of the channels and the first two stages frozen."""
    return MobileNetV2(**NARROW, freeze_at=2)


def test_sizes_equal_those_of_torchvision_without_classifier():
    with keras.StatelessScope():  # weights are created without values
        model = backbones.get("mobilenet_v2")
    assert [x.shape[-1] for x in model.output.values()] == [24, 32, 96, 1280]
    # torchvision's mobilenet_v2 has 3,504,872 parameters, its classifier 1000 outputs of 1280 inputs.
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 3_504_872 - 1281 * 1000
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == 34_112


def test_the_last_convolution_keeps_its_width_in_narrow_networks(narrow):
    with keras.StatelessScope():
        half = MobileNetV2(width=16)
    assert [x.shape[-1] for x in half.output.values()] == [16, 16, 48, 1280]
    assert [x.shape[-1] for x in narrow.output.values()] == [8, 8, 24, 80]


@pytest.mark.parametrize(("padding", "centre"), [("symmetric", lambda stride: 0), ("same", lambda stride: stride - 1)])
def test_units_are_centred_as_documented(padding, centre):
    model = MobileNetV2(**NARROW, padding=padding)
    for level in model.output:
        low, high, stride = reach(model, level, then=())
        assert stride == 2 ** int(level[1:]) and (low + high) / 2 == centre(stride)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 12}, "width=12 is not a multiple of 8"),
        ({"width": 0}, "width=0 is not a multiple of 8"),
        ({"freeze_at": 6}, "freeze_at=6 is not one of"),
        ({"padding": "valid"}, "padding='valid' is not 'symmetric' or 'same'"),
        ({"norm": "layer"}, "norm='layer' is not one of"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        MobileNetV2(**options)


def test_features_under_xla_equal_eager_ones():
    model = MobileNetV2("frozen_batch", **NARROW)
    compiled = tf.function(lambda images: model(images, training=True), jit_compile=True)(IMAGES)
    for level, x in model(IMAGES).items():
        np.testing.assert_allclose(compiled[level], x, atol=1e-4 * np.abs(x).max())


JAX = """
import sys, numpy as np
from keras_maskrcnn.backbones import MobileNetV2, ResNet
images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
mobile = MobileNetV2("frozen_batch", width=8, last_conv=False)
resnext = ResNet(50, "frozen_batch", width=16, groups=8, width_per_group=16)
found = {}
for name, model in (("mobile", mobile), ("resnext", resnext)):
    model.load_weights(f"{sys.argv[1]}/{name}.weights.h5")
    found.update({f"{name}/{level}": np.asarray(x) for level, x in model(images).items()})
np.savez(f"{sys.argv[1]}/features.npz", **found)
"""


@pytest.mark.slow
def test_features_on_jax_equal_those_on_tensorflow(tmp_path):
    """MobileNetV2, and grouped convolutions, in one process."""
    pytest.importorskip("jax")
    models = {
        "mobile": MobileNetV2("frozen_batch", **NARROW),
        "resnext": backbones.ResNet(50, "frozen_batch", width=16, groups=8, width_per_group=16),
    }
    for name, model in models.items():
        model.save_weights(tmp_path / f"{name}.weights.h5")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", JAX, str(tmp_path)], env=environment, check=True)
    found = np.load(tmp_path / "features.npz")
    for name, model in models.items():
        for level, wanted in model(IMAGES).items():
            np.testing.assert_allclose(found[f"{name}/{level}"], wanted, atol=1e-4 * np.abs(wanted).max())
