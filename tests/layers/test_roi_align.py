"""RoIAlign in all lowerings: hand-computed values, a slow reference, and layer options."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import backend
from keras_maskrcnn.layers.roi_align import RoIAlign, RoIWarp

ALL = ("gather", "sparse", "tf_image")
everywhere = pytest.mark.parametrize("implementation", ALL)


def ramp(height, width):
    """f(x, y) = x + 10 y as a map [1, height, width, 1]: bilinear samples inside it are exact."""
    y, x = np.mgrid[:height, :width]
    return (x + 10 * y).astype("float32")[None, :, :, None]


@everywhere
def test_ramp_by_hand(implementation):
    # Box (2, 1)–(6, 5) on a map of stride 1: bins of two by two pixels with centres (3, 2), (5, 2), (3, 4), (5, 4).
    layer = RoIAlign(2, strides=(1,), implementation=implementation)
    output = layer([ramp(8, 9)], np.array([[[2, 1, 6, 5]]], "float32"))
    np.testing.assert_allclose(output[0, 0, ..., 0], [[23, 25], [43, 45]], atol=1e-4)


@everywhere
def test_aligned_subtracts_half_a_pixel(implementation):
    layer = RoIAlign(2, strides=(1,), aligned=True, implementation=implementation)
    output = layer([ramp(8, 9)], np.array([[[2, 1, 6, 5]]], "float32"))
    np.testing.assert_allclose(output[0, 0, ..., 0], np.array([[23, 25], [43, 45]]) - 5.5, atol=1e-4)


@pytest.mark.parametrize("implementation", ["gather", "sparse"])
def test_maximum_by_hand(implementation):
    # Of the four samples of a bin, half a pixel around its centre, the lower right one is the largest. One sample is at
    # the centre.
    box = np.array([[[2, 1, 6, 5]]], "float32")
    for samples, wanted in ((2, [[28.5, 30.5], [48.5, 50.5]]), (1, [[23, 25], [43, 45]])):
        layer = RoIAlign(2, (1,), samples, implementation=implementation, reduce="max")
        np.testing.assert_allclose(layer([ramp(8, 9)], box)[0, 0, ..., 0], wanted, atol=1e-4)


@pytest.mark.parametrize("implementation", ["gather", "sparse"])
def test_gradient_of_equal_samples_goes_to_the_first(implementation):
    # On a constant map: the sample at (1.5, 1.5) of the box (1, 1)–(3, 3), a quarter to each of its four pixels.
    feature = tf.ones((1, 5, 5, 1))
    with tf.GradientTape() as tape:
        tape.watch(feature)
        layer = RoIAlign(1, (1,), implementation=implementation, reduce="max")
        output = layer([feature], tf.constant([[[1.0, 1, 3, 3]]]))
    wanted = np.zeros((5, 5))
    wanted[1:3, 1:3] = 0.25
    np.testing.assert_allclose(tf.convert_to_tensor(tape.gradient(output, feature))[0, ..., 0], wanted)


@everywhere
def test_warp_rounds_the_box_by_hand(implementation):
    # Corners (2.4, 0.6) and (5.4, 4.4) are rounded to pixels 2 … 5 and 1 … 4: the box (2, 1)–(6, 5).
    box = np.array([[[2.4, 0.6, 5.4, 4.4]]], "float32")
    for aligned, shift in ((False, 0), (True, 5.5)):
        layer = RoIWarp(2, (1,), aligned=aligned, implementation=implementation)
        wanted = np.array([[23, 25], [43, 45]]) - shift
        np.testing.assert_allclose(layer([ramp(8, 9)], box)[0, 0, ..., 0], wanted, atol=1e-4)


def test_samples_on_whole_pixels_under_xla():
    # The middle one of 7 bins has its sample on a whole number, computed with rounding; on a ramp it is its position.
    first, side = (values.ravel() for values in np.meshgrid(np.arange(1, 40), np.arange(1, 40, 2)))
    boxes = np.stack([first, 0 * first, first + side, 0 * first + 9], axis=1).astype("float32")
    layer = RoIAlign(7, (1,), 1, aligned=True)
    run = tf.function(lambda boxes: layer([ramp(10, 90)], boxes), jit_compile=True)
    found = run(tf.constant(boxes[None]))[0, :, 3, 3, 0]
    np.testing.assert_allclose(found, first + (side - 1) / 2 + 40, atol=1e-3)


@everywhere
def test_stride_divides_the_box(implementation):
    layer = RoIAlign(2, strides=(16,), implementation=implementation)
    output = layer([ramp(8, 9)], np.array([[[32, 16, 96, 80]]], "float32"))
    np.testing.assert_allclose(output[0, 0, ..., 0], [[23, 25], [43, 45]], atol=1e-4)


@everywhere
def test_small_boxes(implementation):
    # Unaligned, an empty box becomes one pixel, with its centre half a pixel away. Aligned, it is a point.
    box = np.array([[[3, 2, 3, 2]]], "float32")
    unaligned = RoIAlign(1, strides=(1,), implementation=implementation)([ramp(8, 9)], box)
    aligned = RoIAlign(1, strides=(1,), aligned=True, implementation=implementation)([ramp(8, 9)], box)
    np.testing.assert_allclose([unaligned[0, 0, 0, 0, 0], aligned[0, 0, 0, 0, 0]], [3.5 + 25, 2.5 + 15], atol=1e-4)


@everywhere
def test_border_by_hand(implementation):
    # Lines of three pixels 0 1 2. One bin over (-2, 0)–(2, 2) samples x at -1 (pixel 0) and 1, y at 0.5 and 1.5.
    # Over (-2.4, 0)–(1.6, 2) the first sample is outside and 0: half of (0.6 + 10) remains.
    layer = RoIAlign(1, strides=(1,), implementation=implementation)
    boxes = np.array([[[-2, 0, 2, 2], [-2.4, 0, 1.6, 2], [40, 0, 50, 2], [-9, -9, -5, -5]]], "float32")
    output = layer([ramp(10, 3)], boxes)
    np.testing.assert_allclose(output[0, :, 0, 0, 0], [0.5 + 10, 0.3 + 5, 0, 0], atol=1e-4)


@everywhere
def test_level_by_size(implementation):
    # Each level is constant, so the result shows the level.
    features = {f"P{k}": np.full((1, 512 >> k, 512 >> k, 1), k, "float32") for k in range(2, 6)}
    boxes = np.array([[[10, 10, 60, 60], [0, 0, 112, 112], [100, 100, 330, 330], [0, 0, 460, 460]]], "float32")
    output = RoIAlign(3, implementation=implementation)(features, boxes)
    wanted = np.array([2, 3, 4, 5]).reshape(1, 4, 1, 1, 1)
    np.testing.assert_allclose(output, np.broadcast_to(wanted, output.shape), rtol=1e-5)


@everywhere
def test_mixed_precision_keeps_boxes_in_float32(implementation):
    # 1001.5 is 1000 in bfloat16: casting the boxes would change the result by 1.5 pixels.
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = RoIAlign(1, strides=(1,), implementation=implementation)
        output = layer([ramp(4, 1100)], np.array([[[1001.5, 0, 1003.5, 2]]], "float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert output.dtype == "float32"
    np.testing.assert_allclose(output[0, 0, 0, 0, 0], 1002.5 + 10, atol=1e-2)


def slow_reference(feature, box, stride, bins, samples, aligned):
    """One box on one map [H, W], in float64 loops, as defined by the paper and torchvision."""
    height, width = feature.shape

    def sample(y, x):
        if y < -1 or y > height or x < -1 or x > width:
            return 0.0
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = feature[top, left] * (1 - (x - left)) + feature[top, right] * (x - left)
        lower = feature[bottom, left] * (1 - (x - left)) + feature[bottom, right] * (x - left)
        return upper * (1 - (y - top)) + lower * (y - top)

    x1, y1, x2, y2 = np.asarray(box, "float64") / stride - (0.5 if aligned else 0.0)
    w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
    output = np.zeros((bins, bins))
    for p, q in np.ndindex(bins, bins):
        for i, j in np.ndindex(samples, samples):
            y, x = y1 + (p + (i + 0.5) / samples) * h / bins, x1 + (q + (j + 0.5) / samples) * w / bins
            output[p, q] += sample(y, x) / samples**2
    return output


# Coordinates between grid points, so that no sample is exactly at -1 or W, where float32 and float64 may differ.
coordinate = st.integers(-400, 900).map(lambda v: v / 7 + 0.013)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    box=st.tuples(coordinate, coordinate, coordinate, coordinate),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    bins=st.integers(1, 5),
    aligned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_box_against_the_slow_reference(box, size, bins, aligned, seed):
    feature = np.random.default_rng(seed).standard_normal(size).astype("float32")
    wanted = slow_reference(feature, np.asarray(box, "float32"), 8, bins, 2, aligned)
    for implementation in ALL:
        layer = RoIAlign(bins, strides=(8,), aligned=aligned, implementation=implementation)
        found = layer([feature[None, :, :, None]], np.array([[box]], "float32"))
        np.testing.assert_allclose(found[0, 0, ..., 0], wanted, atol=3e-4)


@pytest.mark.parametrize("samples", [1, 3])
def test_other_sampling_ratios(samples):
    feature = np.random.default_rng(0).standard_normal((9, 11)).astype("float32")
    box = [-7.3, 10.1, 50.7, 66.6]
    wanted = slow_reference(feature, box, 8, 3, samples, False)
    for implementation in ("gather", "sparse"):
        layer = RoIAlign(3, strides=(8,), sampling_ratio=samples, implementation=implementation)
        found = layer([feature[None, :, :, None]], np.array([[box]], "float32"))
        np.testing.assert_allclose(found[0, 0, ..., 0], wanted, atol=1e-4)


@everywhere
def test_batch_and_row_index(implementation):
    features = [np.stack([np.full((8, 8, 3), i, "float32") for i in (5, 6)])]
    boxes = np.tile(np.array([1, 1, 6, 6], "float32"), (2, 3, 1))
    layer = RoIAlign(2, strides=(1,), implementation=implementation)
    own = layer(features, boxes)
    assert own.shape == (2, 3, 2, 2, 3)
    np.testing.assert_allclose(own[:, :, 0, 0, 0], [[5, 5, 5], [6, 6, 6]], atol=1e-5)
    chosen = layer(features, boxes, row_index=np.array([[0, 1, 0], [1, 1, 0]], "int32"))
    np.testing.assert_allclose(chosen[:, :, 0, 0, 0], [[5, 6, 5], [6, 6, 5]], atol=1e-5)


@everywhere
def test_dynamic_number_of_rows_including_zero(implementation):
    layer = RoIAlign(2, strides=(1,), implementation=implementation)
    features = tf.constant(ramp(8, 9))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None, 4))])
    def run(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = layer.align_rows([features], boxes, tf.zeros(tf.shape(boxes)[:1], tf.int32))
        return output, tape.gradient(output, features)

    boxes = tf.constant([[2.0, 1, 6, 5], [2, 1, 6, 5], [3, 2, 7, 6]])
    output, gradient = run(features, boxes)
    np.testing.assert_allclose(output[:, 0, 0, 0], [23, 23, 34], atol=1e-4)
    np.testing.assert_allclose(tf.reduce_sum(gradient), 12, atol=1e-4)  # the weights of each bin sum to one
    output, gradient = run(features, boxes[:0])
    assert output.shape == (0, 2, 2, 1)
    assert not np.any(gradient)


@everywhere
def test_boxes_of_nan_give_zeros(implementation):
    layer = RoIAlign(2, strides=(1,), implementation=implementation)
    boxes = np.array([[[np.nan, 1, 6, 5], [2, 1, np.inf, 5], [2, 1, 6, 5]]], "float32")
    output = np.array(layer([ramp(8, 9)], boxes))
    assert not output[0, 0].any()
    np.testing.assert_allclose(output[0, 2, 0, 0, 0], 23, atol=1e-4)


@everywhere
def test_boxes_get_no_gradient(implementation):
    layer = RoIAlign(2, strides=(1,), implementation=implementation)
    boxes = tf.constant([[[2.0, 1, 6, 5]]])
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        output = layer([tf.constant(ramp(8, 9))], boxes)
    assert tape.gradient(output, boxes) is None


def test_auto_depends_on_the_traced_graph(monkeypatch):
    monkeypatch.setattr(backend, "has_gpu", lambda: False)
    chosen = []
    layer = RoIAlign(2, strides=(1,))
    lowering = layer._lowering
    monkeypatch.setattr(layer, "_lowering", lambda: chosen.append(lowering()) or chosen[-1])
    inputs = ([tf.constant(ramp(8, 9))], tf.constant([[[2.0, 1, 6, 5]]]))
    layer(*inputs)
    tf.function(lambda: layer(*inputs))()
    inner = tf.function(lambda: layer(*inputs))
    tf.function(lambda: inner(), jit_compile=True)()
    tf.function(lambda: tf.map_fn(lambda _: layer(*inputs), tf.range(2), tf.float32), jit_compile=True)()
    with backend.static_shapes_scope(True):
        layer(*inputs)
    monkeypatch.setattr(backend, "has_gpu", lambda: True)
    layer(*inputs)
    names = [f.__name__ for f in chosen]
    assert names == ["sparse_align", "sparse_align", *["gather_align"] * 4]


def test_functional_model_has_static_shapes():
    inputs = {f"P{k}": keras.Input((128 >> k, 128 >> k, 4)) for k in range(2, 6)}
    boxes = keras.Input((5, 4))
    output = RoIAlign(3)(inputs, boxes)
    assert output.shape == (None, 5, 3, 3, 4)
    features = [np.ones((2, 128 >> k, 128 >> k, 4), "float32") for k in range(2, 6)]
    model = keras.Model([*inputs.values(), boxes], output)
    found = model.predict([*features, np.tile(np.array([8, 8, 90, 90], "float32"), (2, 5, 1))], verbose=0)
    np.testing.assert_allclose(found, np.ones((2, 5, 3, 3, 4)), atol=1e-5)


def test_config_round_trip():
    options = dict(
        output_size=5,
        strides=[8, 16],
        sampling_ratio=3,
        aligned=True,
        implementation="sparse",
        canonical_size=100,
        canonical_level=3,
        name="cut",
    )
    layer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(RoIAlign(**options)))
    config = layer.get_config()
    assert {name: config[name] for name in options} == options
    assert not layer.autocast


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(implementation="fast"), "implementation must be one of"),
        (dict(implementation="tf_image", sampling_ratio=1), "requires sampling_ratio=2"),
        (dict(implementation="tf_image", reduce="max"), "'tf_image' requires reduce='average', got 'max'"),
        (dict(reduce="sum"), "reduce must be one of"),
        (dict(sampling_ratio=0), "sampling_ratio=0 must be a whole number of at least 1"),
        (dict(sampling_ratio=1.5), "sampling_ratio=1.5 must be a whole number of at least 1"),
        (dict(strides=(4, 16)), "twice the previous one"),
        (dict(strides=()), "strides must not be empty"),
    ],
)
def test_invalid_options_are_rejected(options, reason):
    with pytest.raises(ValueError, match=reason):
        RoIAlign(7, **options)


def test_wrong_number_of_levels_is_rejected():
    with pytest.raises(ValueError, match="4 strides but got 1"):
        RoIAlign(7).align_rows([ramp(4, 4)], np.zeros((1, 4), "float32"), np.zeros(1, "int32"))
