"""DarkNet-53: sizes, positions of units, freezing, saving, JAX, compilation."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backbones
from keras_maskrcnn.backbones import DarkNet53
from keras_maskrcnn.receptive_field import reach

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).random((2, 64, 96, 3)).astype("float32")


@pytest.fixture(scope="module")
def narrow():
    """A network with an eighth of the channels and the first three levels frozen."""
    return DarkNet53(width=4, freeze_at=2)


def affine(inputs, outputs, size):
    """Weights of a convolution without bias, and scale and offset of its normalisation."""
    return size * size * inputs * outputs + 2 * outputs


def test_sizes_equal_those_of_the_paper():
    with keras.StatelessScope():  # weights are created without values
        model = backbones.get("darknet53")
    assert [x.shape[-1] for x in model.output.values()] == [128, 256, 512, 1024]
    wanted, blocks = affine(3, 32, 3), {64: 1, 128: 2, 256: 8, 512: 8, 1024: 4}  # the paper's table 1
    for channels, count in blocks.items():
        half = channels // 2
        wanted += affine(half, channels, 3) + count * (affine(channels, half, 1) + affine(half, channels, 3))
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == wanted == 40_584_928
    # 52 convolutions, the 53rd layer of the name is the classifier.
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) == 52


def test_units_are_centred_on_the_first_pixel_of_their_cell(narrow):
    for level in narrow.output:
        low, high, stride = reach(narrow, level, then=())
        assert stride == 2 ** int(level[1:]) and low + high == 0


def test_a_block_by_hand():
    """The first block of C5 in NumPy: x + leaky(leaky(x·A)·B) with a 3×3 kernel that has a middle only."""
    model = DarkNet53("frozen_batch", width=1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith("stage5_block1"):
            kernel = np.random.default_rng(1).normal(size=layer.kernel.shape)
            middle = np.zeros_like(kernel)
            middle[kernel.shape[0] // 2, kernel.shape[1] // 2] = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
            layer.kernel.assign(middle)
    inside = keras.Model(
        model.get_layer("stage5_block1_1_conv").input, model.get_layer("stage5_block1_add").output, name="block"
    )
    x = np.random.default_rng(2).normal(size=(1, 3, 2, 32)).astype("float32")
    y = x
    for part, size in (("1", 1), ("2", 3)):
        kernel = model.get_layer(f"stage5_block1_{part}_conv").kernel.numpy()[size // 2, size // 2]
        y = y @ kernel / np.sqrt(1 + 1e-5)
        y = np.where(y < 0, 0.1 * y, y)
    np.testing.assert_allclose(inside(x), x + y, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width=0 is not at least 1"),
        ({"freeze_at": 6}, "freeze_at=6 is not one of"),
        ({"norm": "layer"}, "norm='layer' is not one of"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        DarkNet53(**options)


def test_features_under_xla_equal_eager_ones():
    model = DarkNet53("frozen_batch", width=2)
    compiled = tf.function(lambda images: model(images, training=True), jit_compile=True)(IMAGES)
    for level, x in model(IMAGES).items():
        np.testing.assert_allclose(compiled[level], x, atol=1e-4 * np.abs(x).max())


JAX = """
import sys, numpy as np
from keras_maskrcnn.backbones import DarkNet53
images = np.random.default_rng(0).random((2, 64, 96, 3)).astype("float32")
model = DarkNet53("frozen_batch", width=4)
model.load_weights(f"{sys.argv[1]}/dark.weights.h5")
np.savez(f"{sys.argv[1]}/features.npz", **{level: np.asarray(x) for level, x in model(images).items()})
"""


@pytest.mark.slow
def test_features_on_jax_equal_those_on_tensorflow(tmp_path):
    pytest.importorskip("jax")
    model = DarkNet53("frozen_batch", width=4)
    model.save_weights(tmp_path / "dark.weights.h5")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", JAX, str(tmp_path)], env=environment, check=True)
    found = np.load(tmp_path / "features.npz")
    for level, wanted in model(IMAGES).items():
        np.testing.assert_allclose(found[level], wanted, atol=1e-4 * np.abs(wanted).max())
