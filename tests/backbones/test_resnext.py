"""ResNeXts: torchvision's sizes, groups that do not mix, gradients, training, compilation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backbones
from keras_maskrcnn.backbones import ResNet
from keras_maskrcnn.backend.tensorflow import convolution
from keras_maskrcnn.layers import folding
from keras_maskrcnn.layers.norm import norm as make_norm

TINY = {"depth": 50, "width": 16, "groups": 4, "width_per_group": 16}
IMAGES = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")


@pytest.mark.parametrize(
    ("name", "torchvision"),
    [("resnext50_32x4d", 25_028_904), ("resnext101_32x8d", 88_791_336), ("resnext101_64x4d", 83_455_272)],
)
def test_sizes_equal_those_of_torchvision_without_classifier(name, torchvision):
    with keras.StatelessScope():  # weights are created without values
        model = backbones.get(name)
    assert model.name == name
    assert [x.shape[-1] for x in model.output.values()] == [256, 512, 1024, 2048]
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == torchvision - 2049 * 1000


def test_the_3x3_convolutions_have_groups():
    with keras.StatelessScope():
        model = backbones.get("resnext101_64x4d")
    grouped = [layer for layer in model.layers if getattr(layer, "groups", 1) > 1]
    assert {layer.name.split("_", 1)[0] for layer in grouped} == {f"stage{stage}" for stage in (1, 2, 3, 4)}
    assert all(layer.kernel_size == (3, 3) and layer.groups == 64 for layer in grouped) and len(grouped) == 33
    assert model.get_layer("stage2_block1_2_conv").kernel.shape == (3, 3, 8, 512)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18, "groups": 2}, "depth=18 has no bottlenecks"),
        ({"depth": 50, "groups": 0}, "there must be a group"),
        ({"depth": 50, "width": 8, "groups": 32, "width_per_group": 4}, "a channel in each group"),
    ],
)
def test_invalid_groups_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**options)


def separately(inputs, kernel, conv):
    """The grouped convolution as one convolution for each group."""
    parts = zip(tf.split(inputs, conv.groups, 3), tf.split(kernel, conv.groups, 3), strict=True)
    options = {"strides": conv.strides, "padding": conv.padding.upper(), "dilations": conv.dilation_rate}
    return tf.concat([tf.nn.convolution(values, weights, **options) for values, weights in parts], axis=3)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "valid"}, {"dilation_rate": 2}], ids=str)
@pytest.mark.parametrize("kind", ["frozen_batch", "batch"])
def test_grouped_convolutions_equal_separate_ones(kind, options, jit_compile):
    conv = keras.layers.Conv2D(8, 3, groups=4, use_bias=False, **{"padding": "same", **options})
    norm, inputs = make_norm(kind, "norm"), tf.constant(np.random.default_rng(1).normal(size=(2, 9, 8, 12)), "float32")
    norm.build(conv.compute_output_shape(inputs.shape))
    conv.build(inputs.shape)

    def run(inputs, convolve):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = convolve(inputs)
            loss = tf.reduce_sum(tf.sin(outputs))
        return outputs, *tape.gradient(loss, [inputs, conv.kernel.value])

    found = tf.function(lambda x: run(x, lambda x: folding.conv_norm(conv, norm, x, True)), jit_compile=jit_compile)
    wanted = run(inputs, lambda x: norm(separately(x, conv.kernel.value, conv), training=True))
    for ours, theirs in zip(found(inputs), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_builds_of_tensorflow_without_the_gradients_have_a_convolution_per_group(monkeypatch):
    """Without oneDNN, TensorFlow raises "Gradients for grouped convolutions are not supported on CPU"."""
    model = ResNet(**TINY, norm="frozen_batch")
    kernel = model.get_layer("stage1_block1_2_conv").kernel.value

    def run():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(model(IMAGES, training=True)["C2"]))
        return loss, tape.gradient(loss, kernel)

    found = run()
    monkeypatch.setattr(convolution, "has_grouped_gradients", lambda: False)
    for ours, theirs in zip(found, run(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_the_gradients_are_looked_for_once_and_inside_of_functions():
    convolution.has_grouped_gradients.cache_clear()
    found = []
    tf.function(lambda: found.append(convolution.has_grouped_gradients()))()
    assert found == [convolution.has_grouped_gradients()] == [_gives_gradients()]


def _gives_gradients():
    inputs, kernel = tf.Variable(tf.ones((1, 5, 5, 4))), tf.Variable(tf.ones((3, 3, 2, 4)))
    try:
        with tf.GradientTape() as tape:
            outputs = tf.nn.convolution(inputs, kernel, (1, 1), "SAME")
        return None not in tape.gradient(outputs, [inputs, kernel])
    except tf.errors.OpError:
        return False


@pytest.mark.parametrize("norm", ["batch", "frozen_batch", "group"])
def test_every_trainable_weight_gets_a_gradient(norm):
    model = ResNet(**TINY, norm=norm)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(x**2) for x in model(IMAGES, training=True).values())
    weights = model.trainable_weights
    for weight, gradient in zip(weights, tape.gradient(loss, [w.value for w in weights]), strict=True):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, weight.path


def test_half_precision_is_close_to_float32():
    half, exact = ResNet(**TINY, norm="frozen_batch", dtype="mixed_bfloat16"), ResNet(**TINY, norm="frozen_batch")
    exact.set_weights(half.get_weights())
    found = tf.function(lambda x: half(x))(IMAGES)
    for level, wanted in exact(IMAGES).items():
        assert found[level].dtype == tf.bfloat16
        assert np.linalg.norm(tf.cast(found[level], "float32") - wanted) < 0.05 * np.linalg.norm(wanted)


def test_saving_and_loading_keep_the_results(tmp_path):
    model = ResNet(**TINY, freeze_at=2)
    model.save(tmp_path / "resnext.keras")
    again = keras.saving.load_model(tmp_path / "resnext.keras")
    assert (again.groups, again.width_per_group, again.name) == (4, 16, "resnext50_4x16d")
    for level, x in model(IMAGES).items():
        np.testing.assert_array_equal(x, again(IMAGES)[level])


def test_configurations_of_plain_resnets_from_before_there_were_groups():
    config = ResNet(18, width=4).get_config()
    del config["groups"], config["width_per_group"]
    assert ResNet.from_config(config).groups == 1
