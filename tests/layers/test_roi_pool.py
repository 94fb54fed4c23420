"""RoIPool in both lowerings: hand-computed values and gradients, a slow reference, and layer options."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import backend
from keras_maskrcnn.backend.tensorflow import roi_pool
from keras_maskrcnn.layers.roi_pool import RoIPool

ALL = ("gather", "sorted")
everywhere = pytest.mark.parametrize("implementation", ALL)


def ramp(height, width):
    """f(x, y) = x + 10 y as a map [1, height, width, 1]."""
    y, x = np.mgrid[:height, :width]
    return (x + 10 * y).astype("float32")[None, :, :, None]


def pooled(features, boxes, bins, implementation="gather", stride=1):
    """Pooled boxes of one image and one channel, [R, P, P]."""
    layer = RoIPool(bins, (stride,), implementation)
    return np.array(layer([features], np.array([boxes], "float32")))[0, ..., 0]


def gradient(feature, boxes, cotangent, bins, implementation, **function):
    """Gradient of Σ output · cotangent, [H, W], for boxes of one image and one channel."""
    layer = RoIPool(bins, (1,), implementation)

    @tf.function(**function)
    def run(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = layer([features], np.array([boxes], "float32"))
        return tf.convert_to_tensor(tape.gradient(output, features, tf.constant(cotangent, tf.float32)))

    return run(tf.constant(feature)).numpy()[0, ..., 0]


@everywhere
def test_ramp_by_hand(implementation):
    # Box (2, 1)–(5, 4): pixels 2 … 5 and 1 … 4, bins of two by two pixels, the largest value in the lower right corner.
    # Box (2, 1)–(4, 3): three pixels in two bins, which share the middle one.
    found = pooled(ramp(8, 9), [[2, 1, 5, 4], [2, 1, 4, 3]], 2, implementation)
    np.testing.assert_array_equal(found, [[[23, 25], [43, 45]], [[23, 24], [33, 34]]])


@everywhere
def test_rounding_by_hand(implementation):
    # At stride 4 the corners are 1.5, 0.25, 3.25 and 2.5: pixels 2 … 3 and 0 … 3. One bin: 3 + 30.
    assert pooled(ramp(8, 9), [[6, 1, 13, 10]], 1, implementation, stride=4)[0, 0, 0] == 33


@everywhere
def test_border_by_hand(implementation):
    # Pixels -2 … 1 of three: two columns of bins, of which the first is outside of the map; then a box far outside, an
    # inverted box, which has the one pixel (2, 1), and boxes that are not finite.
    nan = float("nan")
    boxes = [[-2, 0, 1, 1], [40, 0, 50, 1], [2, 1, 0, 0], [nan, 0, 2, 2], [0, 0, np.inf, 2], [0, 0, 1e30, 1]]
    found = pooled(ramp(3, 3), boxes, 2, implementation)
    np.testing.assert_array_equal(found[0], [[0, 1], [0, 11]])
    assert not found[1].any() and not found[3].any() and not found[4].any()
    np.testing.assert_array_equal(found[2], np.full((2, 2), 12))
    np.testing.assert_array_equal(found[5], [[2, 0], [12, 0]])


@everywhere
def test_values_below_zero_are_no_empty_bins(implementation):
    np.testing.assert_array_equal(pooled(-1 - ramp(4, 4), [[0, 0, 3, 3]], 2, implementation)[0], [[-1, -3], [-21, -23]])


@everywhere
@pytest.mark.parametrize("jit", [False, True])
def test_gradient_goes_to_the_first_maximum(implementation, jit):
    if jit and implementation != "gather":
        return
    # All pixels are equal: the first of each bin. The two boxes add up where they share it; outside no gradient.
    boxes, cotangent = [[2, 1, 5, 4], [2, 1, 4, 2], [9, 9, 12, 12]], np.arange(12).reshape(1, 3, 2, 2, 1)
    found = gradient(np.ones((1, 6, 7, 1), "float32"), boxes, cotangent, 2, implementation, jit_compile=jit)
    wanted = np.zeros((6, 7))
    wanted[1, 2], wanted[1, 4], wanted[3, 2], wanted[3, 4] = 0 + 4, 1, 2, 3
    wanted[1, 3], wanted[2, 2], wanted[2, 3] = 5, 6, 7  # the second box: columns 2–3 and 3–4, rows 1 and 2
    np.testing.assert_array_equal(found, wanted)


def slow_reference(feature, box, stride, bins):
    """Values [P, P] and the pixel of each maximum, in loops over one map [H, W]; float32 as in torchvision's kernel."""
    height, width = feature.shape
    corner = np.asarray(box, "float32") * np.float32(1 / stride)
    x1, y1, x2, y2 = (int(np.trunc(c + np.copysign(0.5, c))) for c in corner.astype("float64"))
    step_x, step_y = (np.float32(max(b - a + 1, 1)) / np.float32(bins) for a, b in ((x1, x2), (y1, y2)))
    output, places = np.zeros((bins, bins), "float32"), {}
    for p, q in np.ndindex(bins, bins):
        rows, columns = (
            range(
                min(max(int(np.floor(np.float32(n) * step)) + first, 0), limit),
                min(max(int(np.ceil(np.float32(n + 1) * step)) + first, 0), limit),
            )
            for n, step, first, limit in ((p, step_y, y1, height), (q, step_x, x1, width))
        )
        pixels = [(y, x) for y in rows for x in columns]
        if pixels:
            places[p, q] = max(pixels, key=lambda pixel: feature[pixel])  # the first of equal ones
            output[p, q] = feature[places[p, q]]
    return output, places


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    box=st.tuples(*[st.integers(-400, 1200).map(lambda v: v / 8)] * 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bins=st.sampled_from([1, 2, 3, 7, 14]),
    seed=st.integers(0, 99),
)
def test_any_box_against_the_slow_reference(box, size, bins, seed):
    rng = np.random.default_rng(seed)
    feature = rng.integers(-3, 4, size).astype("float32")  # many equal values
    wanted, places = slow_reference(feature, box, 8, bins)
    cotangent = rng.integers(1, 9, (bins, bins)).astype("float32")
    wanted_gradient = np.zeros(size)
    for bin_, pixel in places.items():
        wanted_gradient[pixel] += cotangent[bin_]
    for implementation in ALL:
        features = tf.constant(feature[None, :, :, None])
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = RoIPool(bins, (8,), implementation)([features], tf.constant([[box]], tf.float32))
        found = tf.convert_to_tensor(tape.gradient(output, features, cotangent[None, None, :, :, None]))
        np.testing.assert_array_equal(output[0, 0, ..., 0], wanted)
        np.testing.assert_array_equal(found[0, ..., 0], wanted_gradient)


@pytest.mark.parametrize("implementation, jit", [("gather", True), ("sorted", False)])
def test_every_width_has_the_bins_of_float32_division(implementation, jit):
    # 7 and 14 bins: products with the reciprocal of P, or exact fractions, give other bins for some widths.
    width = np.arange(1, 700, dtype="float32")
    feature = ramp(1, 900)
    boxes = np.stack([0 * width, 0 * width, width - 1, 0 * width], axis=1)
    for bins in (7, 14):
        layer = RoIPool(bins, (1,), implementation)
        run = tf.function(lambda boxes, layer=layer: layer([feature], boxes), jit_compile=jit)
        found = run(tf.constant(boxes[None]))[0, :, 0, :, 0]
        step = (width / np.float32(bins))[:, None]
        last = np.ceil(np.arange(1, bins + 1, dtype="float32") * step) - 1
        np.testing.assert_array_equal(found, last)
        exact = -(-np.arange(1, bins + 1) * width[:, None].astype(int) // bins) - 1
        assert (last != exact).any()


@everywhere
def test_level_by_size(implementation):
    # Each level is constant, so the result shows the level.
    features = {f"P{k}": np.full((1, 512 >> k, 512 >> k, 1), k, "float32") for k in range(2, 6)}
    boxes = np.array([[[10, 10, 60, 60], [0, 0, 112, 112], [100, 100, 330, 330], [0, 0, 460, 460]]], "float32")
    output = RoIPool(3, implementation=implementation)(features, boxes)
    wanted = np.array([2, 3, 4, 5]).reshape(1, 4, 1, 1, 1)
    np.testing.assert_array_equal(output, np.broadcast_to(wanted, output.shape))


@everywhere
def test_batch_and_row_index(implementation):
    features = [np.stack([np.full((8, 8, 3), i, "float32") for i in (5, 6)])]
    boxes = np.tile(np.array([1, 1, 6, 6], "float32"), (2, 3, 1))
    layer = RoIPool(2, (1,), implementation)
    np.testing.assert_array_equal(layer(features, boxes)[:, :, 0, 0, 0], [[5, 5, 5], [6, 6, 6]])
    chosen = layer(features, boxes, row_index=np.array([[0, 1, 0], [1, 1, 0]], "int32"))
    np.testing.assert_array_equal(chosen[:, :, 0, 0, 0], [[5, 6, 5], [6, 6, 5]])


@everywhere
def test_dynamic_number_of_rows_including_zero(implementation):
    layer = RoIPool(2, (1,), implementation)
    features = tf.constant(ramp(8, 9))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None, 4))])
    def run(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = layer.align_rows([features], boxes, tf.zeros(tf.shape(boxes)[:1], tf.int32))
        return output, tape.gradient(output, features)

    boxes = tf.constant([[2.0, 1, 5, 4], [2, 1, 5, 4], [3, 2, 6, 5]])
    output, found = run(features, boxes)
    np.testing.assert_array_equal(output[:, 0, 0, 0], [23, 23, 34])
    assert tf.reduce_sum(found) == 12
    output, found = run(features, boxes[:0])
    assert output.shape == (0, 2, 2, 1)
    assert not np.any(found)


def test_small_parts_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    feature = rng.integers(0, 4, (1, 20, 30, 1)).astype("float32")
    boxes = np.concatenate([rng.uniform(-5, 20, (40, 2)), rng.uniform(5, 35, (40, 2))], axis=1).astype("float32")
    cotangent = rng.integers(1, 9, (1, 40, 3, 3, 1))
    values, gradients = pooled(feature, boxes, 3), gradient(feature, boxes, cotangent, 3, "gather")
    for numbers in (1, 50, 10**6):
        monkeypatch.setattr(roi_pool, "NUMBERS_AT_ONCE", numbers)
        np.testing.assert_array_equal(pooled(feature, boxes, 3, "sorted"), values)
        np.testing.assert_array_equal(gradient(feature, boxes, cotangent, 3, "sorted"), gradients)


def test_auto_depends_on_the_traced_graph(monkeypatch):
    monkeypatch.setattr(backend, "has_gpu", lambda: False)
    layer = RoIPool(2, (1,))
    names = []
    run = tf.function(lambda: names.append(layer._lowering().__name__))
    run()
    tf.function(lambda: names.append(layer._lowering().__name__) or tf.zeros(()), jit_compile=True)()
    monkeypatch.setattr(backend, "has_gpu", lambda: True)
    names.append(layer._lowering().__name__)
    assert names == ["sorted_pool", "gather_pool", "gather_pool"]


def test_functional_model_has_static_shapes():
    inputs, boxes = keras.Input((16, 16, 4)), keras.Input((5, 4))
    assert RoIPool(3, (8,))([inputs], boxes).shape == (None, 5, 3, 3, 4)


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(implementation="sparse"), "implementation must be one of"),
        (dict(output_size=0), "output_size=0 must be a whole number of at least 1"),
        (dict(output_size=(7, 7)), r"output_size=\(7, 7\) must be a whole number of at least 1"),
        (dict(strides=(4, 16)), "twice the previous one"),
    ],
)
def test_invalid_options_are_rejected(options, reason):
    with pytest.raises(ValueError, match=reason) as error:
        RoIPool(**{"output_size": 7, **options})
    assert "\n" not in str(error.value)
