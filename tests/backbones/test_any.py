"""Models of keras.applications as backbones: levels, training, saving, compilation, invalid models."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN, backbones, data

ROOT = pathlib.Path(__file__).parents[2]
ANY_SIZE = {"include_top": False, "weights": None, "input_shape": (None, None, 3)}
HALF = {"pixel_mean": (127.5,) * 3, "pixel_std": (127.5,) * 3}
NONE = {"pixel_mean": (0.0,) * 3, "pixel_std": (1.0,) * 3}

# Constructor, input normalisation, and the layers found at strides 4, 8, 16, 32.
MODELS = {
    "ResNet50V2": (
        lambda: keras.applications.ResNet50V2(**ANY_SIZE),
        HALF,
        ("conv2_block3_1_relu", "conv3_block4_1_relu", "conv4_block6_1_relu", "post_relu"),
    ),
    "MobileNetV2": (
        lambda: keras.applications.MobileNetV2(alpha=0.35, **ANY_SIZE),
        HALF,
        ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"),
    ),
    "EfficientNetV2B0": (
        lambda: keras.applications.EfficientNetV2B0(**ANY_SIZE),
        NONE,
        ("block2b_add", "block4a_expand_activation", "block6a_expand_activation", "top_activation"),
    ),
}
OTHERS = ("ResNet50V2", "EfficientNetV2B0")


def small_network(sides=(None, None)):
    """Four strided convolutions with the odd intermediate sizes of explicit padding."""
    x = inputs = keras.Input((*sides, 3))
    for i in range(1, 6):
        x = keras.layers.ZeroPadding2D(1, name=f"pad{i}")(x)
        x = keras.layers.Conv2D(4 + i, 3, strides=2, activation="relu", name=f"conv{i}")(x)
    return keras.Model(inputs, x, name="small")


def detector(backbone, **options):
    """A Mask R-CNN with narrow heads for shapes of 128×128."""
    return MaskRCNN(
        3,
        backbone,
        image_size=(128, 128),
        fpn_channels=32,
        anchors={"sizes": ((16,), (24,), (48,), (64,), (96,))},
        proposals={"pre_nms": 50, "post_nms": 20},
        rpn_sampling={"size": 32},
        box_sampling={"size": 16},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        seed=7,
        **options,
    )


@pytest.fixture(scope="module")
def batch():
    """Two images of 128×128 as NumPy (x, y)."""
    shapes = data.Shapes(2, image_size=(128, 128), seed=5)
    x, y = next(iter(data.batches(shapes, (128, 128), 2, max_instances=6, mask_size=28, backend="numpy")))
    return {k: np.asarray(v) for k, v in x.items()}, {k: np.asarray(v) for k, v in y.items()}


@pytest.mark.parametrize("name", MODELS)
def test_levels_are_the_last_layers_of_their_strides(name):
    make, _, layers = MODELS[name]
    with keras.StatelessScope():  # weights are created without values
        given = make()
        backbone = backbones.from_keras(given)
    assert list(backbone.output) == ["C2", "C3", "C4", "C5"]
    for tensor, layer in zip(backbone.output.values(), layers, strict=True):
        assert tensor is given.get_layer(layer).output  # the same layers, not copies


@pytest.mark.parametrize("name", ["MobileNetV2", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_two_steps_change_the_losses_and_every_kernel(name, batch):
    make, pixels, _ = MODELS[name]
    backbone = backbones.from_keras(make())
    model = detector(backbone, **pixels)
    model.compile(keras.optimizers.SGD(1e-2), run_eagerly=True)
    before = [np.array(weight) for weight in backbone.trainable_weights]
    losses = []
    for _ in range(2):
        model.reset_metrics()
        losses.append(model.train_on_batch(*batch, return_dict=True))
    assert all(np.isfinite(list(logs.values())).all() for logs in losses)
    assert losses[0]["loss"] != pytest.approx(losses[1]["loss"], rel=1e-4)
    pairs = zip(backbone.trainable_weights, before, strict=True)
    still = {weight.path for weight, old in pairs if np.array_equal(weight, old)}
    assert not [path for path in still if path.endswith("kernel")]
    assert len(still) < len(before) / 20


@pytest.fixture(scope="module")
def mobile():
    """A detector on MobileNetV2."""
    keras.utils.set_random_seed(0)
    return detector(backbones.from_keras(MODELS["MobileNetV2"][0]()), **HALF)


def test_saving_and_loading_keep_the_results(mobile, tmp_path):
    mobile.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    assert again.backbone.name == mobile.backbone.name
    image = np.random.default_rng(0).normal(size=(1, 128, 96, 3)).astype("float32")
    wanted = mobile.backbone(image)
    for level, features in again.backbone(image).items():
        np.testing.assert_allclose(features, wanted[level], atol=1e-5)


def test_jax_gives_the_same_results(tmp_path):
    backbone = backbones.from_keras(
        small_network()
    )  # JAX compiles every initializer, which is slow for a large network
    backbone.save(tmp_path / "m.keras")
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    np.save(tmp_path / "image.npy", image)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", JAX_PROGRAM, str(tmp_path)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    wanted = backbone(image)
    for level, features in np.load(tmp_path / "jax.npz").items():
        np.testing.assert_allclose(features, wanted[level], atol=1e-5)


JAX_PROGRAM = """
import sys
import keras, numpy as np
from keras_maskrcnn import backbones
assert keras.backend.backend() == "jax"
backbone = backbones.from_keras(keras.saving.load_model(sys.argv[1] + "/m.keras"))
found = backbone.predict_on_batch(np.load(sys.argv[1] + "/image.npy"))
assert sorted(found) == ["C2", "C3", "C4", "C5"]
np.savez(sys.argv[1] + "/jax.npz", **found)
"""


def test_features_under_xla_equal_eager_ones(mobile):
    """The levels C2 and C3 of MobileNetV2: the later ones have the same layers."""
    backbone = keras.Model(mobile.backbone.input, {level: mobile.backbone.output[level] for level in ("C2", "C3")})
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    fast = tf.function(lambda x: backbone(x, training=True), jit_compile=True)(image)
    for level, features in backbone(image, training=True).items():
        np.testing.assert_allclose(fast[level], features, atol=1e-3)


def test_a_model_keeps_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        given = small_network()
    finally:
        keras.config.set_dtype_policy("float32")
    backbone = backbones.from_keras(given)
    assert {x.dtype for x in backbone(np.zeros((1, 64, 64, 3), "float32")).values()} == {tf.bfloat16}
    assert {weight.dtype for weight in backbone.weights} == {"float32"}


def test_padding_layers_of_odd_sizes_are_skipped():
    output = backbones.from_keras(small_network()).output
    assert {level: x.shape[-1] for level, x in output.items()} == {"C2": 6, "C3": 7, "C4": 8, "C5": 9}


def test_named_levels_are_used_and_later_layers_dropped():
    backbone = backbones.from_keras(small_network(), {"C4": "conv4", "C3": "conv3"})
    assert list(backbone.output) == ["C3", "C4"]
    assert "conv5" not in {layer.name for layer in backbone.layers}
    assert backbones.get(backbone) is backbone


def test_a_fixed_input_size_is_kept():
    backbone = backbones.from_keras(small_network((64, 96)))
    assert backbone.input.shape == (None, 64, 96, 3)
    assert backbone.output["C5"].shape == (None, 2, 3, 9)


def test_pyramid_outputs_of_kerashub_are_used():
    given = small_network()
    given.pyramid_outputs = {f"P{i}": given.get_layer(f"conv{i}").output for i in (1, 5, 4)}
    backbone = backbones.from_keras(given)
    assert {level: x.shape[-1] for level, x in backbone.output.items()} == {"C4": 8, "C5": 9}


def without_an_input():
    return type("Subclass", (keras.Model,), {})()


def of_two_inputs():
    inputs = [keras.Input((None, None, 3)), keras.Input((None, None, 3))]
    return keras.Model(inputs, keras.layers.Add()(inputs), name="two")


def unpadded():
    """Sizes without an integer stride: 127, 63, …"""
    layers = [keras.layers.Conv2D(2, 3, strides=2, name=f"conv{i}") for i in range(1, 6)]
    return keras.Sequential([keras.Input((None, None, 3)), *layers], name="unpadded")


@pytest.mark.parametrize(
    ("make", "levels", "reason"),
    [
        (small_network, {"C2": "convv2"}, "small has no layer 'convv2'; the nearest names are conv2, conv"),
        (small_network, {"C2": "conv3"}, "C2 of small, layer 'conv3', has stride 8; C2 is stride 4"),
        (small_network, {"C3": "conv4", "C4": "conv3"}, "C3 of small, layer 'conv4', has stride 16"),
        (small_network, {"C2": "pad3"}, "C2 of small, layer 'pad3', has no integer stride"),
        (small_network, {"C2": "conv2", "C4": "conv4"}, "levels of small are C2, C4, not consecutive"),
        (small_network, {"P2": "conv2"}, "levels of small are P2, not consecutive ones of C2 … C5"),
        (small_network, {}, "levels of small are none"),
        (unpadded, None, "unpadded has no layer of stride 4, 8, 16, 32: specify the layers"),
        (without_an_input, None, "is not a functional Keras model"),
        (lambda: "MobileNetV2", None, "'MobileNetV2' is not a functional Keras model"),
        (of_two_inputs, None, r"two takes inputs of shape (None, None, None, 3), (None, None, None, 3), not one"),
    ],
)
def test_invalid_arguments_give_messages_of_one_line(make, levels, reason):
    with pytest.raises(ValueError) as raised:
        backbones.from_keras(make(), levels)
    assert reason in str(raised.value) and "\n" not in str(raised.value)
