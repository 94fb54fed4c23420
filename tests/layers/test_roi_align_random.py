"""RoIAlign with random positions: hand-computed values on a linear map, expectation, all lowerings, layer option."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.backend.tensorflow.roi_align import sparse_align
from keras_maskrcnn.layers.roi_align import RoIAlign
from keras_maskrcnn.ops.roi import level_boxes
from keras_maskrcnn.ops.roi_align import gather_align

LOWERINGS = {"gather": gather_align, "sparse": sparse_align}
everywhere = pytest.mark.parametrize("implementation", LOWERINGS)
NAN = float("nan")
# Inside, half outside, larger than a canvas of 64 pixels, empty, inverted, far away, and NaN.
BOXES = np.array(
    [
        [2, 1, 40, 30],
        [-20, -9, 13, 17],
        [-9, -9, 80, 80],
        [7, 7, 7, 7],
        [30, 20, 10, 5],
        [500, 0, 600, 50],
        [NAN, 1, 6, 5],
        [1, 1, np.inf, 9],
    ],
    "float32",
)


def ramp(height, width):
    """f(x, y) = x + 10 y as a map [1, height, width, 1]: bilinear samples inside it are exact."""
    y, x = np.mgrid[:height, :width]
    return (x + 10 * y).astype("float32")[None, :, :, None]


def pyramid(channels=3):
    rng = np.random.default_rng(1)
    return [rng.standard_normal((2, 64 // s, 64 // s, channels)).astype("float32") for s in (4, 8)]


def cut(align, features, boxes, offsets, aligned=False, reduce="average", **function):
    """Output `[N, P, P, C]` and the gradients of every level, with boxes on alternating levels and images."""
    rows = tf.range(len(boxes))
    cotangent = np.random.default_rng(2).standard_normal((len(boxes), *offsets.shape[2:4], 3)).astype("float32")

    @tf.function(**function)
    def run(features, boxes, offsets):
        with tf.GradientTape() as tape:
            tape.watch(features)
            bins, samples = offsets.shape[3], round(offsets.shape[4] ** 0.5)
            placed = level_boxes(boxes, rows % 2, rows // 2 % 2, (4, 8), aligned)
            output = align(features, placed, bins, samples, reduce, offsets)
        return [output, *tape.gradient(output, features, cotangent)]

    found = run([tf.constant(f) for f in features], tf.constant(boxes), tf.constant(offsets))
    return [tf.convert_to_tensor(one).numpy() for one in found]


def some_offsets(rows, bins=3, samples=2):
    return np.random.default_rng(3).uniform(size=(rows, 2, bins, bins, samples**2)).astype("float32")


@everywhere
@pytest.mark.parametrize("aligned", [False, True])
def test_linear_map_by_hand(implementation, aligned):
    # Box (2, 1)–(6, 7), two by two bins 2 wide and 3 high. On a linear map a bin is the value at the mean of its
    # positions.
    offsets = some_offsets(1, bins=2)
    y, x = offsets[0].mean(axis=-1)
    p = np.arange(2)
    wanted = (2 + 2 * (p[None, :] + x)) + 10 * (1 + 3 * (p[:, None] + y)) - (5.5 if aligned else 0)
    zeros, box = np.zeros(1, "int32"), np.array([[2, 1, 6, 7]], "float32")
    placed = level_boxes(box, zeros, zeros, (1,), aligned)
    found = LOWERINGS[implementation]([ramp(9, 9)], placed, 2, 2, offsets=offsets)
    np.testing.assert_allclose(np.array(found)[0, ..., 0], wanted, rtol=1e-5)


@pytest.mark.parametrize("reduce", ["average", "max"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_lowerings_agree_in_values_and_gradients(aligned, samples, reduce):
    offsets = some_offsets(len(BOXES), samples=samples)
    gathered, sparse = (cut(align, pyramid(), BOXES, offsets, aligned, reduce) for align in LOWERINGS.values())
    for one, other in zip(gathered, sparse, strict=True):
        assert np.isfinite(one).all() and np.abs(one).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-5)


@everywhere
def test_offsets_of_the_grid_equal_regular_positions(implementation):
    # Border rule, levels, images and conventions are those of the regular samples; only the positions differ.
    quarter = np.array([0.25, 0.75], "float32")
    grid = np.stack([np.repeat(quarter, 2), np.tile(quarter, 2)])[None, :, None, None]
    offsets = np.broadcast_to(grid, (len(BOXES), 2, 3, 3, 4))
    align = LOWERINGS[implementation]
    rows = np.arange(len(BOXES), dtype="int32")
    regular = align(pyramid(), level_boxes(BOXES, rows % 2, rows // 2 % 2, (4, 8)), 3, 2)
    np.testing.assert_allclose(cut(align, pyramid(), BOXES, offsets)[0], regular, atol=1e-5)


def test_gather_compiles_with_xla():
    offsets = some_offsets(len(BOXES))
    plain, compiled = (cut(gather_align, pyramid(), BOXES, offsets, jit_compile=jit) for jit in (False, True))
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_sparse_gradient_is_deterministic():
    offsets = some_offsets(200, bins=7)
    boxes = np.tile(np.array([[3, 4, 50, 60]], "float32"), (200, 1))
    first, *others = (cut(sparse_align, pyramid(), boxes, offsets) for _ in range(3))
    for other in others:
        for one, again in zip(first, other, strict=True):
            np.testing.assert_array_equal(one, again)


@everywhere
def test_layer_draws_each_sample_in_its_own_bin(implementation):
    # One sample per bin reads its own position: x in one channel, y in the other, exact on a linear map.
    y, x = np.mgrid[:40, :40].astype("float32")
    features = [np.stack([x, y], axis=-1)[None]]
    boxes = np.tile(np.array([4, 8, 32, 36], "float32"), (1, 50, 1))
    layer = RoIAlign(7, (1,), 1, implementation=implementation, positions="random", seed=0)
    places = np.array(layer(features, boxes, training=True))[0]
    bins = np.stack(np.meshgrid(np.arange(7), np.arange(7)), axis=-1)
    offsets = (places - [4, 8]) / 4 - bins
    assert offsets.min() > -1e-4 and offsets.max() < 1 + 1e-4
    # 50 · 49 · 2 independent uniform numbers: mean, variance, no correlation between axes or neighbouring bins.
    assert offsets.mean() == pytest.approx(0.5, abs=0.02)
    assert offsets.std() == pytest.approx(12**-0.5, abs=0.01)
    pairs = [
        (offsets[..., 0], offsets[..., 1]),
        (offsets[:, 1:], offsets[:, :-1]),
        (offsets[:, :, 1:], offsets[:, :, :-1]),
        (offsets[1:], offsets[:-1]),
    ]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.08


def test_expectation_is_the_average_over_the_bin():
    # f = sin(x / 5) · cos(y / 7) whose bilinear interpolation differs from it by at most 1 %.
    y, x = np.mgrid[:40, :40]
    feature = (np.sin(x / 5) * np.cos(y / 7)).astype("float32")[None, :, :, None]
    draws = 4000
    boxes = np.tile(np.array([4, 6, 28, 30], "float32"), (1, draws, 1))
    layer = RoIAlign(2, (1,), positions="random", implementation="sparse", seed=4)
    output = np.array(layer([feature], boxes, training=True))[0, ..., 0]
    edges_x, edges_y = np.array([4, 16, 28]), np.array([6, 18, 30])
    along_x = -5 * np.diff(np.cos(edges_x / 5)) / 12
    along_y = 7 * np.diff(np.sin(edges_y / 7)) / 12
    deviation = output.std(axis=0) / draws**0.5
    assert (np.abs(output.mean(axis=0) - along_y[:, None] * along_x) < 4 * deviation + 0.005).all()
    assert (deviation > 1e-4).all()


def test_draws_differ_and_a_seed_repeats_them():
    features, boxes = pyramid(), np.tile(BOXES[:2], (2, 1, 1))
    first, same, other = (RoIAlign(3, (4, 8), positions="random", seed=seed) for seed in (5, 5, 6))
    draws = [np.array(first(features, boxes, training=True)) for _ in range(2)]
    assert not np.allclose(draws[0], draws[1], atol=1e-2)
    assert not np.allclose(draws[0], np.array(other(features, boxes, training=True)), atol=1e-2)
    for draw in draws:
        np.testing.assert_array_equal(draw, same(features, boxes, training=True))


@pytest.mark.parametrize("implementation", ["gather", "sparse"])
def test_outside_training_positions_are_regular(implementation):
    features, boxes = pyramid(), np.tile(BOXES, (2, 1, 1))
    random, regular = (
        RoIAlign(3, (4, 8), implementation=implementation, positions=positions) for positions in ("random", "regular")
    )
    wanted = np.array(regular(features, boxes))
    np.testing.assert_array_equal(random(features, boxes), wanted)
    np.testing.assert_array_equal(random(features, boxes, training=False), wanted)
    np.testing.assert_array_equal(regular(features, boxes, training=True), wanted)
    assert not np.allclose(random(features, boxes, training=True), wanted, atol=1e-2)


@everywhere
def test_dynamic_number_of_rows_including_zero(implementation):
    layer = RoIAlign(2, (1,), implementation=implementation, positions="random", seed=0)
    features = tf.constant(ramp(8, 9))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None, 4))])
    def run(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            image_index = tf.zeros(tf.shape(boxes)[:1], tf.int32)
            output = layer.align_rows([features], boxes, image_index, training=True)
        return output, tape.gradient(output, features)

    boxes = tf.constant([[2.0, 1, 6, 5], [2, 1, 6, 5], [3, 2, 7, 6]])
    output, gradient = run(features, boxes)
    assert not np.allclose(output[0], output[1], atol=1e-2)  # equal boxes get different positions
    np.testing.assert_allclose(tf.reduce_sum(gradient), 12, atol=1e-4)  # the weights of each bin sum to one
    output, gradient = run(features, boxes[:0])
    assert output.shape == (0, 2, 2, 1)
    assert not np.any(gradient)


def test_layer_compiles_with_xla_and_draws_new_positions():
    layer = RoIAlign(2, (1,), positions="random", seed=0)
    box = tf.constant([[[2.0, 1, 6, 5]]])
    run = tf.function(lambda: layer([tf.constant(ramp(8, 9))], box, training=True), jit_compile=True)
    draws = np.stack([run()[0, 0, ..., 0] for _ in range(3)])
    low = np.array(
        [[12, 14], [32, 34]]
    )  # the first corner of each bin, 2 by 2 pixels: the value rises by 22 to the last corner
    assert (draws >= low).all() and (draws <= low + 22).all()
    assert (np.ptp(draws, axis=0) > 1e-2).all()


def test_positions_are_random_in_training_only():
    features, boxes = keras.Input((8, 9, 1)), keras.Input((1, 4))
    output = RoIAlign(1, (1,), positions="random", seed=0)([features], boxes)
    model = keras.Model([features, boxes], output)
    inputs = [tf.constant(ramp(8, 9)), tf.constant([[[2.0, 1, 6, 5]]])]
    draws = np.ravel([model(inputs, training=True) for _ in range(2)])
    assert abs(draws[0] - draws[1]) > 1e-3
    # The box's centre is (4, 3).
    np.testing.assert_allclose(np.ravel(model(inputs)), [34], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(model.predict(inputs, verbose=0)), [34], rtol=1e-6)


def test_config_round_trip():
    layer = RoIAlign(3, positions="random", seed=11)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (again.positions, again.seed) == ("random", 11)
    features, boxes = (
        [np.random.default_rng(0).standard_normal((1, 64 >> k, 64 >> k, 2)) for k in range(4)],
        BOXES[None],
    )
    features = [feature.astype("float32") for feature in features]
    np.testing.assert_array_equal(layer(features, boxes, training=True), again(features, boxes, training=True))


def test_regular_positions_have_no_variable():
    assert not RoIAlign(3).variables
    assert len(RoIAlign(3, positions="random").variables) == 1


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(positions="anywhere"), "positions must be one of"),
        (dict(positions="random", implementation="tf_image"), "'tf_image' requires positions='regular'"),
    ],
)
def test_invalid_options_are_rejected(options, reason):
    with pytest.raises(ValueError, match=reason) as error:
        RoIAlign(7, **options)
    assert "\n" not in str(error.value)
