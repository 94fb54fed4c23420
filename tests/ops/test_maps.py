"""Enlarged maps and classes of pixels: by hand, against TensorFlow, NumPy against the graph."""

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.ops.maps import class_map, class_maps, enlarge, resize, unpool

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def test_a_row_enlarged_by_hand():
    row = np.array([0, 4, 8], "float32").reshape(1, 1, 3, 1)
    np.testing.assert_allclose(np.ravel(enlarge(row, 2)[0, 0]), [0, 1, 3, 5, 7, 8])
    np.testing.assert_allclose(np.ravel(enlarge(row, 4)[0, 0]), [0, 0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8, 8])
    assert enlarge(row, 1) is row


def test_nearest_and_bicubic_by_hand():
    row = np.array([0, 4, 8], "float32").reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(np.ravel(enlarge(row, 2, "nearest")[0, 0]), [0, 0, 4, 4, 8, 8])
    # A quarter of a cell before a centre: the weights of the cells two and one before, of the cell and of the next one.
    weights = np.array([-0.0234375, 0.2265625, 0.8671875, -0.0703125])
    expected = [weights @ cells for cells in ([0, 0, 0, 4], [8, 4, 0, 0], [0, 0, 4, 8], [8, 8, 4, 0], [0, 4, 8, 8])]
    np.testing.assert_allclose(np.ravel(enlarge(row, 2, "bicubic")[0, 0])[:5], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_bicubic_is_that_of_tensorflow_away_from_the_border(factor):
    """At the border TensorFlow leaves out the cells beyond it; here the edge cells are repeated."""
    values = normal(2, 9, 8, 3)
    expected = tf.image.resize(values, (9 * factor, 8 * factor), "bicubic")
    inner = np.s_[:, 2 * factor : -2 * factor, 2 * factor : -2 * factor]
    np.testing.assert_allclose(enlarge(values, factor, "bicubic")[inner], expected[inner], atol=1e-5)
    constant = np.full((1, 3, 1, 1), 2.0, "float32")
    np.testing.assert_allclose(enlarge(constant, factor, "bicubic"), np.full((1, 3 * factor, factor, 1), 2), atol=1e-6)


def test_unpooling_by_hand():
    values = np.array([[1.0, 2], [3, 4]], "float32")[None, :, :, None]
    fixed = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(unpool(values, 2)[0, :, :, 0], fixed)
    guide = np.zeros((1, 4, 4, 2), "float32")
    guide[0, 0, 1], guide[0, 1, 2], guide[0, 3, 0], guide[0, 2, 3] = 1, 2, 3, 4
    guide[0, 1, 3] = 5, -5  # mean 0: the channels are averaged
    expected = [[0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 4], [3, 0, 0, 0]]
    np.testing.assert_array_equal(unpool(values, 2, guide)[0, :, :, 0], expected)


def test_max_unpooling_inverts_max_pooling():
    """What TensorFlow's pooling with indices took is put back where it was."""
    maps = normal(2, 6, 8, 1)
    pooled, index = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID")
    expected = np.zeros(maps.size, "float32").reshape(2, -1)
    for image in range(2):
        expected[image, np.ravel(index[image])] = np.ravel(pooled[image])
    np.testing.assert_array_equal(unpool(pooled, 2, maps), expected.reshape(maps.shape))


def assert_as_tensorflow(function, size):
    """Values and gradients are those of `tf.image.resize`."""
    values, weights = tf.constant(normal(2, 5, 3, 4)), normal(2, *size, 4)
    found = []
    for resized in (function, lambda v: tf.image.resize(v, size)):
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = resized(values)
            total = tf.reduce_sum(result * weights)
        found.append((result, tape.gradient(total, values)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_values_and_gradients_are_those_of_tensorflow(factor):
    assert_as_tensorflow(lambda v: enlarge(v, factor), (5 * factor, 3 * factor))


@pytest.mark.parametrize("size", [(10, 6), (9, 7), (3, 2), (5, 3), (1, 1)])
def test_any_size_has_the_values_and_gradients_of_tensorflow(size):
    assert_as_tensorflow(lambda v: resize(v, size), size)


def test_resize_is_enlarge_where_the_factor_is_whole():
    values = normal(1, 4, 3, 2)
    np.testing.assert_allclose(resize(values, (8, 6)), enlarge(values, 2), atol=1e-6)


def test_open_shapes():
    graph = tf.function(lambda v: enlarge(v, 2), input_signature=[tf.TensorSpec([None, None, None, 3])])
    values = normal(2, 4, 7, 3)
    np.testing.assert_allclose(graph(values), enlarge(values, 2), atol=1e-6)
    assert graph.get_concrete_function().structured_outputs.shape[-1] == 3


def test_at_the_scale_of_the_cells_pixels_have_the_class_of_the_enlarged_logits():
    logits = normal(6, 5, 4)
    expected = np.argmax(enlarge(logits[None], 4)[0], axis=-1)
    np.testing.assert_array_equal(class_map(logits, (0.25, 0.25), (24, 20)), expected)
    np.testing.assert_array_equal(class_map(logits, (0.25, 0.25), (13, 17)), expected[:13, :17])


@pytest.mark.parametrize("size", [(3, 2), (50, 31), (1, 1), (300, 400)])
def test_the_graph_gives_the_same_classes(size):
    logits = normal(2, 9, 12, 5)
    logits[..., 0] += 1  # large regions of one class, which are not interpolated in NumPy
    scale = np.array([11.3 / size[1], 6.9 / size[0]], "float32")
    graph = class_maps(tf.constant(logits), tf.constant(scale), size)
    ours = np.stack([class_map(image, scale, size) for image in logits])
    assert ours.dtype == np.uint8 and np.mean(ours == np.array(graph)) > 0.9999  # equal logits up to rounding
