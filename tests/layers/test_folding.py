"""Folded convolution and normalisation: values and gradients of the two layers in sequence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.backbones import get
from keras_maskrcnn.backend.tensorflow.convolution import scaled_conv
from keras_maskrcnn.layers.folding import FoldingModel, conv_norm
from keras_maskrcnn.layers.norm import norm as make_norm

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(2, 9, 8, 5)).astype("float32")


OPTIONS = [
    {},
    {"strides": 2, "padding": "valid"},
    {"dilation_rate": 2},
    {"depth_multiplier": 1},
    {"depth_multiplier": 2, "strides": 2},
    {"depth_multiplier": 1, "dilation_rate": 2},
]


def layers(kind, dtype="float32", **options):
    """A convolution, depthwise with `depth_multiplier`, and a normalisation with other statistics than the data's."""
    options = {"kernel_size": 3, "padding": "same", "use_bias": False, "dtype": dtype, **options}
    depthwise = "depth_multiplier" in options
    conv = keras.layers.DepthwiseConv2D(**options) if depthwise else keras.layers.Conv2D(filters=6, **options)
    norm = make_norm(kind, "norm", dtype)
    norm(conv(INPUTS))
    norm.set_weights([np.abs(RNG.normal(size=w.shape)).astype("float32") + 0.5 for w in norm.weights])
    return conv, norm


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_values_and_gradients_are_equal(options, jit_compile):
    conv, norm = layers("frozen_batch", **options)
    run = tf.function(lambda x: conv_norm(conv, norm, x, training=True), jit_compile=jit_compile)
    found = values_and_gradients(run, conv, INPUTS)
    wanted = values_and_gradients(lambda x: norm(conv(x)), conv, INPUTS)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_half_precision_gradients_are_close_to_float32():
    conv, norm = layers("frozen_batch", "mixed_bfloat16")
    exact_conv, exact_norm = layers("frozen_batch")
    exact_conv.set_weights(conv.get_weights())
    exact_norm.set_weights(norm.get_weights())
    _, *found = values_and_gradients(lambda x: conv_norm(conv, norm, x, training=True), conv, INPUTS)
    _, *wanted = values_and_gradients(lambda x: exact_norm(exact_conv(x)), exact_conv, INPUTS)
    for ours, exact in zip(found, wanted, strict=True):
        assert ours.dtype == tf.float32
        assert np.linalg.norm(ours - exact) < 0.05 * np.linalg.norm(exact)


def test_half_precision_depthwise_convolutions_of_padded_inputs():
    """Of even sides, "valid" with stride 2 has the fast gradients too, of all windows but the last."""
    options = {"depth_multiplier": 1, "strides": 2, "padding": "valid"}
    conv, norm = layers("frozen_batch", "mixed_bfloat16", **options)
    exact_conv, exact_norm = layers("frozen_batch", **options)
    exact_conv.set_weights(conv.get_weights())
    exact_norm.set_weights(norm.get_weights())
    inputs = np.random.default_rng(2).normal(size=(2, 12, 10, 5)).astype("float32")
    found = values_and_gradients(lambda x: conv_norm(conv, norm, x, training=True), conv, inputs)
    wanted = values_and_gradients(lambda x: exact_norm(exact_conv(x)), exact_conv, inputs)
    assert found[0].shape == wanted[0].shape == (2, 5, 4, 5)
    for ours, exact in zip(found, wanted, strict=True):
        assert np.linalg.norm(ours - exact) < 0.05 * np.linalg.norm(exact)


def test_gradient_of_the_scale():
    kernel, scale = RNG.normal(size=(3, 3, 5, 6)).astype("float32"), RNG.normal(size=6).astype("float32")
    gradients = []
    for convolve in (scaled_conv, lambda x, k, s, *options: tf.nn.conv2d(x, k * s, *options)):
        values = [tf.constant(v) for v in (INPUTS, kernel, scale)]
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = tf.reduce_sum(tf.sin(convolve(*values, (2, 2), "VALID")))
        gradients.append(tape.gradient(loss, values))
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def values_and_gradients(function, conv, inputs):
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.cast(function(inputs), tf.float32)
        loss = tf.reduce_sum(tf.sin(outputs))
    return [outputs, *tape.gradient(loss, [inputs, conv.kernel.value])]


@pytest.mark.parametrize("kind", ["frozen_batch", "batch", "group"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_values_and_gradients_equal_the_layers_in_sequence(kind, options):
    conv, norm = layers(kind, **options)
    found = values_and_gradients(lambda x: conv_norm(conv, norm, x), conv, INPUTS)
    wanted = values_and_gradients(lambda x: norm(conv(x)), conv, INPUTS)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_batch_statistics_are_used_and_averaged_in_training():
    conv, norm = layers("batch")
    before = norm.moving_mean.numpy()
    found = conv_norm(conv, norm, INPUTS, training=True).numpy()
    assert np.abs(norm.moving_mean.numpy() - before).max() > 0.01
    beta, gamma = norm.beta.numpy(), norm.gamma.numpy()
    np.testing.assert_allclose((found.mean((0, 1, 2)) - beta) / gamma, 0, atol=1e-4)
    np.testing.assert_allclose(found.std((0, 1, 2)) / gamma, 1, atol=1e-3)


def test_a_frozen_layer_keeps_its_statistics_in_training():
    conv, norm = layers("batch")
    norm.trainable = False
    before = [w.numpy() for w in norm.weights]
    found = conv_norm(conv, norm, INPUTS, training=True)
    np.testing.assert_allclose(found, norm(conv(INPUTS), training=False), atol=1e-4)
    for weight, value in zip(norm.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_half_precision_rounds_once():
    conv, norm = layers("frozen_batch", "mixed_bfloat16")
    exact_conv, exact_norm = layers("frozen_batch")
    exact_conv.set_weights(conv.get_weights())
    exact_norm.set_weights(norm.get_weights())
    exact = exact_norm(exact_conv(INPUTS)).numpy()
    folded, apart = (
        np.abs(np.asarray(tf.cast(y, tf.float32)) - exact).mean()
        for y in (conv_norm(conv, norm, INPUTS), norm(conv(INPUTS)))
    )
    assert conv_norm(conv, norm, INPUTS).dtype == tf.bfloat16
    assert folded < 1.2 * apart


@pytest.mark.parametrize(
    "backbone",
    [
        {"name": "resnet18", "width": 8, "norm": "frozen_batch"},
        {"name": "resnet50", "width": 8, "norm": "batch"},
        {"name": "simple_cnn"},
        {"name": "resnet18", "width": 8, "norm": "group"},
        {"name": "efficientnet_lite0", "norm": "frozen_batch"},
        {"name": "efficientnet_lite0", "norm": "batch", "freeze_at": 3},
        {"name": "mobilenet_v2", "norm": "frozen_batch", "width": 8},
        {"name": "darknet53", "norm": "frozen_batch", "width": 4},
        {"name": "resnet50", "width": 16, "groups": 2, "width_per_group": 16, "norm": "frozen_batch"},
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_backbone_equals_its_layers_in_sequence(backbone, training):
    keras.utils.set_random_seed(1)
    ours = get(backbone)
    rng = np.random.default_rng(4)
    ours.set_weights([np.abs(w) * 0.5 + 0.2 * rng.random(w.shape) if w.ndim == 1 else w for w in ours.get_weights()])
    paths = [w.path for w in ours.weights]
    image = tf.constant(rng.normal(size=(2, 64, 96, 3)).astype("float32"))
    start = ours.get_weights()
    wanted = super(FoldingModel, ours).call(image, training=training)
    ours.set_weights(start)
    found = ours(image, training=training)
    assert found.keys() == wanted.keys()
    for level, values in found.items():
        scale = np.abs(wanted[level]).max()
        np.testing.assert_allclose(values / scale, wanted[level] / scale, atol=1e-4)
    assert [w.path for w in ours.weights] == paths
