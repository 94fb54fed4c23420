"""Winograd's algorithm for 3×3 convolutions: hand-computed cases, TensorFlow's convolution, and where it is used."""

import functools

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from keras_maskrcnn import backend
from keras_maskrcnn.backend.tensorflow import winograd
from keras_maskrcnn.layers.folding import conv_norm, convolved
from keras_maskrcnn.layers.norm import norm as make_norm


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(backend, "has_gpu", lambda: False)
    monkeypatch.setattr(backend, "processor_flags", lambda: frozenset())
    monkeypatch.delenv("KMR_WINOGRAD", raising=False)


def random_case(shape, channels, filters):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(*shape, channels)).astype("float32")
    return tf.constant(inputs), tf.constant(random.normal(size=(3, 3, channels, filters)).astype("float32"))


def relative_error(found, wanted):
    found, wanted = tf.cast(found, tf.float64), tf.cast(wanted, tf.float64)
    return float(tf.reduce_max(tf.abs(found - wanted)) / tf.reduce_max(tf.abs(wanted)))


def test_ones_count_the_neighbours():
    counts = winograd.winograd_conv(tf.ones((2, 5, 3, 1)), tf.ones((3, 3, 1, 1)))[..., 0]
    wanted = [[4, 6, 4], [6, 9, 6], [6, 9, 6], [6, 9, 6], [4, 6, 4]]
    np.testing.assert_allclose(counts, [wanted, wanted], atol=1e-4)


def test_a_kernel_of_one_cell_shifts_the_map():
    values = np.arange(1, 13, dtype="float32").reshape(1, 3, 4, 1)
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[0, 2] = 1  # the neighbour above on the right
    shifted = winograd.winograd_conv(tf.constant(values), tf.constant(kernel))[0, ..., 0]
    np.testing.assert_allclose(shifted, [[0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0]], atol=1e-4)


TRANSFORMS = pytest.mark.parametrize(
    ("transforms", "bound"), [(winograd.FINE, 2e-5), (winograd.COARSE, 5e-4)], ids=["fine", "coarse"]
)


@TRANSFORMS
@pytest.mark.parametrize("strip", [1, 200, winograd.STRIP])
def test_equal_to_tensorflows_convolution_in_strips_of_any_size(strip, transforms, bound, monkeypatch):
    monkeypatch.setattr(winograd, "STRIP", strip)
    unknown = [tf.TensorSpec([None, None, None, 16]), tf.TensorSpec([3, 3, 16, 24])]
    conv = functools.partial(winograd.winograd_conv, transforms=transforms)
    run = tf.function(lambda *x: conv(*x), input_signature=unknown, autograph=False)
    for shape in ((1, 1, 1), (1, 4, 4), (2, 5, 7), (3, 9, 2), (1, 30, 41), (7, 14, 14)):
        inputs, kernel = random_case(shape, 16, 24)
        found = run(inputs, kernel)
        assert found.shape == (*shape, 24)
        assert relative_error(found, tf.nn.conv2d(inputs, kernel, 1, "SAME")) < bound


def test_the_matrices_of_lavin_and_gray():
    """F(4×4, 3×3) of their section 4.3; its rows may be negated, two at a time."""
    found = winograd.Transforms([0.0, 1.0, -1.0, 2.0, -2.0])
    assert (found.tile, found.window) == (4, 6)
    np.testing.assert_allclose(found.outputs[1:3], [[0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0]])
    np.testing.assert_allclose(np.abs(found.kernel[[0, 3]]), [[1 / 4, 0, 0], [1 / 24, 1 / 12, 1 / 6]], atol=1e-6)
    np.testing.assert_allclose(np.abs(found.inputs[[0, 3]]), [[4, 0, 5, 0, 1, 0], [0, 2, 1, 2, 1, 0]], atol=1e-5)


def test_the_error_of_256_channels():
    inputs, kernel = random_case((1, 50, 68), 256, 256)
    wanted = tf.nn.conv2d(tf.cast(inputs, tf.float64), tf.cast(kernel, tf.float64), 1, "SAME")
    found = tf.cast(winograd.winograd_conv(inputs, kernel), tf.float64)
    assert relative_error(found, wanted) < 3e-5
    assert tf.norm(found - wanted) < 6e-6 * tf.norm(wanted)


@pytest.mark.parametrize("shape", [(1, 40, 40), (20, 14, 14)])  # the second in tiles of 7×7
def test_bfloat16_outputs_are_as_exact_as_direct_ones(shape):
    inputs, kernel = random_case(shape, 128, 128)
    inputs = tf.cast(inputs, tf.bfloat16)
    wanted = tf.nn.conv2d(tf.cast(inputs, tf.float64), tf.cast(kernel, tf.float64), 1, "SAME")

    def error(found):
        assert found.dtype == tf.bfloat16
        return float(tf.norm(tf.cast(found, tf.float64) - wanted) / tf.norm(wanted))

    direct = tf.nn.conv2d(inputs, tf.cast(kernel, tf.bfloat16), 1, "SAME")
    assert 0 < error(winograd.winograd_conv(inputs, kernel)) <= error(direct)


@pytest.mark.parametrize(
    ("dtype", "sides", "used"),
    [
        ("bfloat16", (14, 28), winograd.COARSE),
        ("bfloat16", (14, 27), winograd.FINE),
        ("bfloat16", (None, 14), winograd.FINE),
        ("float32", (14, 14), winograd.FINE),
    ],
)
def test_large_tiles_are_for_bfloat16_regions_that_they_divide(dtype, sides, used):
    assert winograd._transforms(tf.TensorSpec([None, *sides, 4], dtype)) is used


@pytest.mark.parametrize(
    ("dtype", "shape", "is_large"),
    [
        ("float32", (1, 10, 9), False),
        ("float32", (1, 40, 40), True),
        ("bfloat16", (1, 90, 91), False),
        ("bfloat16", (2, 64, 64), True),
    ],
)
def test_only_large_maps_take_the_algorithm(dtype, shape, is_large, monkeypatch):
    inputs, kernel = random_case(shape, 4, 5)
    inputs = tf.cast(inputs, dtype)

    def algorithm(inputs, kernel, finish):
        return tf.cast(finish(tf.zeros((*shape, 5))), inputs.dtype)

    monkeypatch.setattr(winograd, "winograd_conv", algorithm)
    found = winograd.large_conv(inputs, kernel, lambda outputs: outputs + 1)
    direct = tf.cast(tf.nn.conv2d(inputs, tf.cast(kernel, dtype), 1, "SAME"), "float32") + 1
    wanted = tf.ones((*shape, 5)) if is_large else tf.cast(direct, dtype)
    assert found.dtype == dtype
    np.testing.assert_allclose(tf.cast(found, "float32"), tf.cast(wanted, "float32"), atol=1e-5)


def test_the_lowering_is_for_inference_on_a_cpu(monkeypatch):
    def chosen():
        return backend.lowering("large_conv")

    assert chosen() == "direct"
    with backend.inference_scope():
        assert chosen() == "winograd"
        with backend.static_shapes_scope(True):
            assert chosen() == "direct"
        monkeypatch.setenv("KMR_WINOGRAD", "0")
        assert chosen() == "direct"
        monkeypatch.delenv("KMR_WINOGRAD")
        monkeypatch.setattr(backend, "has_gpu", lambda: True)
        assert chosen() == "direct"
    assert chosen() == "direct"


@pytest.mark.parametrize("flags", [(), ("avx512_bf16",), ("avx512_bf16", "amx_bf16")])
def test_the_lowering_in_bfloat16_is_for_processors_without_amx(flags, monkeypatch):
    monkeypatch.setattr(backend, "processor_flags", lambda: frozenset(flags))
    with backend.inference_scope():
        assert backend.lowering("large_conv", "bfloat16") == ("direct" if "amx_bf16" in flags else "winograd")
        assert backend.lowering("large_conv", "float32") == "winograd"
        assert backend.lowering("large_conv", "float16") == "direct"


def has_loop(function, channels):
    """Whether the graph of a function of maps has a loop, as Winograd's algorithm does."""
    spec = tf.TensorSpec([None, None, None, channels])
    graph = tf.function(function, input_signature=[spec], autograph=False).get_concrete_function().graph
    functions = graph.as_graph_def().library.function
    return any(node.op in ("While", "StatelessWhile") for function in functions for node in function.node_def)


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({}, True),
        ({"use_bias": False, "activation": "relu"}, True),
        ({"filters": 127}, False),
        ({"kernel_size": 1}, False),
        ({"strides": 2}, False),
        ({"dilation_rate": 2}, False),
        ({"padding": "valid"}, False),
        ({"groups": 2}, False),
        ({"dtype": "mixed_bfloat16", "filters": 255}, False),
        ({"dtype": "mixed_bfloat16", "filters": 256}, True),
        ({"dtype": "mixed_float16"}, False),
    ],
    ids=str,
)
def test_layers_that_take_the_algorithm(options, used):
    conv = keras.layers.Conv2D(**{"filters": 128, "kernel_size": 3, "padding": "same", **options})
    channels = 256 if "dtype" in options else 128
    conv.build((None, None, None, channels))
    assert not has_loop(lambda x: convolved(conv, x), channels)
    with backend.inference_scope():
        assert has_loop(lambda x: convolved(conv, x), channels) == used


DTYPES = pytest.mark.parametrize(
    ("dtype", "channels", "shape", "bound"),
    [("float32", 128, (2, 20, 18), 3e-5), ("mixed_bfloat16", 256, (6, 40, 36), 1e-2)],
)


@DTYPES
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_layer_keeps_its_bias_and_activation(activation, dtype, channels, shape, bound):
    options = {"activation": activation, "bias_initializer": "random_normal", "dtype": dtype}
    conv = keras.layers.Conv2D(channels, 3, padding="same", **options)
    inputs, _ = random_case(shape, channels, 1)
    wanted = conv(inputs)
    with backend.inference_scope():
        found = convolved(conv, inputs)
    assert found.dtype == wanted.dtype == conv.compute_dtype
    assert relative_error(found, wanted) < bound


@DTYPES
def test_a_folded_normalisation(dtype, channels, shape, bound):
    conv = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, dtype=dtype)
    norm = make_norm("frozen_batch", "norm", dtype)
    inputs, _ = random_case(shape, channels, 1)
    norm(conv(inputs))
    random = np.random.default_rng(1)
    norm.set_weights([random.uniform(0.5, 2, weight.shape).astype("float32") for weight in norm.weights])
    with backend.inference_scope():
        assert has_loop(lambda x: conv_norm(conv, norm, x), channels)
        found = conv_norm(conv, norm, inputs)
    assert found.dtype == conv.compute_dtype
    assert relative_error(found, norm(conv(inputs))) < bound
