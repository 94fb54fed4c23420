"""EfficientNet-Lite: published sizes, padding, kinds of normalisation, freezing, saving, compilation."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN, backbones
from keras_maskrcnn.backbones import EfficientNetLite
from keras_maskrcnn.receptive_field import reach

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")


@pytest.fixture(scope="module")
def lite0():
    """Lite0 with the first two stages frozen."""
    return EfficientNetLite(freeze_at=2)


@pytest.mark.parametrize(
    ("variant", "published", "channels"),
    [(0, 4_652_008, (24, 40, 112, 320)), (1, 5_416_680, (24, 40, 112, 320)), (2, 6_092_072, (24, 48, 120, 352))],
)
def test_sizes_equal_the_published_ones_without_classifier(variant, published, channels):
    with keras.StatelessScope():  # weights are created without values
        model = backbones.get(f"efficientnet_lite{variant}")
    assert tuple(x.shape[-1] for x in model.output.values()) == channels
    classifier = 1280 * channels[-1] + 2 * 1280 + 1281 * 1000
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == published - classifier


def test_units_are_centred_as_documented(lite0):
    for level in lite0.output:
        low, high, stride = reach(lite0, level, then=())
        assert stride == 2 ** int(level[1:]) and (low + high) / 2 == stride - 1


def test_frozen_parts_keep_their_statistics_in_training(lite0):
    frozen, later = (lite0.get_layer(f"stage{stage}_block1_depthwise_norm") for stage in (2, 3))
    before = frozen.moving_mean.numpy(), later.moving_mean.numpy()
    lite0(IMAGES, training=True)
    np.testing.assert_array_equal(frozen.moving_mean, before[0])
    assert (later.moving_mean.numpy() != before[1]).any()


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights():
    with keras.StatelessScope():
        model = backbones.get("efficientnet_lite0", dtype="mixed_bfloat16")
    assert {x.dtype for x in model.output.values()} == {"bfloat16"}
    assert {w.dtype for w in model.weights} == {"float32"}


def test_a_detector_takes_the_pixel_statistics_of_its_backbone(lite0):
    def pixels(backbone, **given):
        model = MaskRCNN(1, backbone, fpn_channels=8, box_stage={"width": 4}, mask_stage={"width": 4}, **given)
        config = model.get_config()
        assert (config["pixel_mean"], config["pixel_std"]) == (model.pixel_mean, model.pixel_std)
        return model.pixel_mean[0], model.pixel_std[0]

    assert pixels(lite0) == (127.0, 128.0)
    assert pixels(lite0, pixel_mean=(1, 2, 3)) == (1, 128.0)
    narrow = {"name": "resnet10", "width": 4}
    assert pixels(narrow) == (123.675, 58.395)
    assert pixels({**narrow, "pixel_mean": (9, 9, 9), "pixel_std": (2, 2, 2)}) == (9, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": 3}, "variant=3 is not one of"),
        ({"freeze_at": 6}, "freeze_at=6 is not one of"),
        ({"norm": "layer"}, "norm='layer' is not one of"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite(**options)


@pytest.mark.slow
def test_features_and_gradients_under_xla_equal_eager_ones():
    model = EfficientNetLite(norm="frozen_batch")
    kernels = [model.get_layer(f"stage{stage}_block1_depthwise_conv").kernel.value for stage in (1, 3, 7)]

    def run(images):
        with tf.GradientTape() as tape:
            features = model(images, training=True)
            loss = sum(tf.reduce_mean(x**2) for x in features.values())
        return list(features.values()), tape.gradient(loss, kernels)

    compiled = tf.nest.flatten(tf.function(run, jit_compile=True)(IMAGES))
    for fast, plain in zip(compiled, tf.nest.flatten(run(tf.constant(IMAGES))), strict=True):
        np.testing.assert_allclose(fast, plain, atol=1e-4 * np.abs(plain).max())


JAX = """
import sys, numpy as np
from keras_maskrcnn.backbones import EfficientNetLite
model = EfficientNetLite(norm="frozen_batch")
model.load_weights(sys.argv[1])
images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
np.savez(sys.argv[2], **{level: np.asarray(x) for level, x in model(images).items()})
"""


@pytest.mark.slow
def test_features_on_jax_equal_those_on_tensorflow(tmp_path):
    pytest.importorskip("jax")
    model = EfficientNetLite(norm="frozen_batch")
    model.save_weights(tmp_path / "lite0.weights.h5")
    command = [sys.executable, "-c", JAX, str(tmp_path / "lite0.weights.h5"), str(tmp_path / "features.npz")]
    subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}, check=True)
    found = np.load(tmp_path / "features.npz")
    for level, wanted in model(IMAGES).items():
        np.testing.assert_allclose(found[level], wanted, atol=1e-4 * np.abs(wanted).max())
