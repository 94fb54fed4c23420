"""ResNets: parameter counts of torchvision, strides, torch's padding, freezing, precision."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backbones
from keras_maskrcnn.backbones.resnet import ResNet, _Builder

DEPTHS = (18, 34, 50, 101)
EXPANSION = {18: 1, 34: 1, 50: 4, 101: 4}


@functools.cache
def narrow(depth):
    """A network of the same structure with a 64th of the cost."""
    return ResNet(depth, width=8)


@pytest.mark.parametrize(
    ("depth", "torchvision", "classifier"),
    [
        (18, 11_689_512, 513_000),
        (34, 21_797_672, 513_000),
        (50, 25_557_032, 2_049_000),
        (101, 44_549_160, 2_049_000),
    ],
)
def test_parameter_counts_equal_torchvision_without_classifier(depth, torchvision, classifier):
    with keras.StatelessScope():  # weights are created without values
        model = ResNet(depth)
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert trainable == torchvision - classifier
    # Batch norm has as many stored statistics as scales and offsets.
    affine = sum(int(np.prod(w.shape)) for w in model.trainable_weights if w.name in ("gamma", "beta"))
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == affine


@pytest.mark.parametrize("depth", DEPTHS)
def test_levels_strides_and_widths(depth):
    features = narrow(depth)(np.zeros((1, 64, 96, 3), "float32"))
    expected = {f"C{i}": (1, 64 // 2**i, 96 // 2**i, 8 * 2 ** (i - 2) * EXPANSION[depth]) for i in (2, 3, 4, 5)}
    assert {level: tuple(x.shape) for level, x in features.items()} == expected
    assert {level: x.shape[-1] for level, x in narrow(depth).output.items()} == {k: s[-1] for k, s in expected.items()}


def test_the_stride_is_in_the_3x3_convolution():
    model = narrow(50)
    strided = {
        layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2)
    }
    assert strided == {"stem_conv", *(f"stage{s}_block1_2_conv" for s in (2, 3, 4))}
    # A strided 1×1 convolution is a selection of every second pixel followed by a 1×1 convolution.
    subsampled = {layer.name: layer.pool_size for layer in model.layers if layer.name.endswith("_subsample")}
    assert subsampled == {f"stage{s}_block1_shortcut_subsample": (1, 1) for s in (2, 3, 4)}
    assert model.get_layer("stage2_block1_2_conv").kernel_size == (3, 3)
    assert not any(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))


def test_padding_is_symmetric():
    """A 3×3 sum of stride 2 over 4×4 ones: torch pads every side by one, so the first window covers a corner of 2×2.

    TensorFlow's "same" pads right and below only and would give [[9, 6], [6, 4]].
    """
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, _Builder(None, 1e-5, False, None).conv_norm(inputs, 1, 3, stride=2, name="x"))
    model.set_weights([np.ones((3, 3, 1, 1))])
    np.testing.assert_array_equal(model(np.ones((1, 4, 4, 1), "float32"))[0, ..., 0], [[4, 6], [6, 9]])


def test_stem_and_its_pooling_are_centred_on_every_second_pixel():
    model = narrow(18)
    stem, pool = (keras.Model(model.input, model.get_layer(name).output) for name in ("stem_conv", "stem_pool"))
    image = np.random.default_rng(0).uniform(1, 2, (1, 16, 12, 3)).astype("float32")
    centre = np.zeros((7, 7, 3, 8))
    centre[3, 3, 0] = 1
    before = model.get_layer("stem_conv").get_weights()
    model.get_layer("stem_conv").set_weights([centre])
    try:
        # The kernel is centred on the even pixels: index i of stride s is at pixel i·s, as in `grid_anchors`.
        np.testing.assert_allclose(stem(image)[0, ..., 0], image[0, ::2, ::2, 0], rtol=1e-6)
        # Index i of the pooling covers 2i - 1 … 2i + 1 of its input.
        padded = np.pad(image[0, ::2, ::2, 0], 1)
        best = np.max([padded[r : r + 8 : 2, c : c + 6 : 2] for r in range(3) for c in range(3)], axis=0)
        np.testing.assert_allclose(pool(image)[0, ..., 0], best / np.sqrt(1 + 1e-5), rtol=1e-4)
    finally:
        model.get_layer("stem_conv").set_weights(before)


def test_frozen_parts_keep_their_statistics_in_training():
    model = ResNet(18, width=4, freeze_at=1)
    stem, later = (model.get_layer(f"{name}_norm") for name in ("stem", "stage1_block1_1"))
    before = stem.moving_mean.numpy(), later.moving_mean.numpy()
    model(np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32"), training=True)
    np.testing.assert_array_equal(stem.moving_mean, before[0])
    assert (later.moving_mean.numpy() != before[1]).any()


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights():
    model = ResNet(18, width=4, dtype="mixed_bfloat16")
    assert {x.dtype for x in model(np.zeros((1, 32, 32, 3), "float32")).values()} == {tf.bfloat16}
    assert {w.dtype for w in model.weights} == {"float32"}


def test_saving_and_loading_keep_the_results(tmp_path):
    model = ResNet(18, width=4, freeze_at=2, dtype="mixed_bfloat16")
    model.save(tmp_path / "resnet.keras")
    again = keras.saving.load_model(tmp_path / "resnet.keras")
    assert isinstance(again, ResNet)
    assert [w.path for w in again.trainable_weights] == [w.path for w in model.trainable_weights]
    for mine, yours in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(mine, yours)
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    for level, x in model(image).items():
        np.testing.assert_array_equal(tf.cast(x, "float32"), tf.cast(again(image)[level], "float32"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "depth=20 is not one of"),
        ({"depth": 18, "freeze_at": -1}, "freeze_at=-1 is not one of"),
        ({"depth": 18, "freeze_at": 6}, "freeze_at=6 is not one of"),
        ({"depth": 18, "norm": "layer"}, "norm='layer' is not one of"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**options)


def test_get_accepts_a_name_or_options():
    made = backbones.get({"name": "resnet18", "norm": "group", "width": 4, "freeze_at": 1}, dtype="mixed_bfloat16")
    assert (made.depth, made.norm, made.width, made.freeze_at) == (18, "group", 4, 1)
    assert made.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert isinstance(backbones.get("simple_cnn"), backbones.SimpleCNN)
    assert backbones.get(made) is made


@pytest.mark.parametrize("wrong", ["resnet20", {"norm": "group"}, 50, None])
def test_get_rejects_other_values(wrong):
    with pytest.raises(ValueError, match="backbone"):
        backbones.get(wrong)


def test_get_rejects_a_model_without_named_levels():
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=r"outputs \{'C2'"):
        backbones.get(keras.Model(inputs, keras.layers.ReLU()(inputs)))
