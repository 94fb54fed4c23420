"""Up-sampling: what learned kernels start as, and every method compiled."""

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.layers.upsampling import METHODS, Upsampling
from keras_maskrcnn.ops.maps import enlarge

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(2, 5, 4, 3)).astype("float32")
GUIDE = RNG.normal(size=(2, 20, 16, 6)).astype("float32")


@pytest.mark.parametrize("factor", [2, 4])
def test_a_deconvolution_starts_as_bilinear_interpolation(factor):
    found = Upsampling(factor, "deconvolution")(MAPS)
    expected = MAPS
    while expected.shape[1] < found.shape[1]:
        expected = enlarge(expected, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_unpooling_starts_as_interpolation_between_the_top_left_pixels():
    found = np.array(Upsampling(2, "unpool")(MAPS))
    np.testing.assert_allclose(found[:, ::2, ::2], MAPS, atol=1e-6)
    np.testing.assert_allclose(found[:, 1:-1:2, ::2], (MAPS[:, :-1] + MAPS[:, 1:]) / 2, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_sizes_gradients_and_xla(method):
    layer = Upsampling(4, method)
    assert layer.compute_output_shape((2, 5, None, 3)) == (2, 20, None, 3)

    def total(maps):
        found = layer(maps, GUIDE)
        return tf.reduce_sum(found * tf.reshape(tf.range(2 * 20 * 16 * 3, dtype=tf.float32) / 1e3, (2, 20, 16, 3)))

    def gradients(maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            value = total(maps)
        return value, tape.gradient(value, [maps, *layer.trainable_weights])

    value, plain = gradients(tf.constant(MAPS))
    compiled_value, compiled = tf.function(gradients, jit_compile=True)(tf.constant(MAPS))
    assert float(value) == pytest.approx(float(compiled_value), rel=1e-4)
    assert len(plain) == 1 + 2 * {"unpool": 2, "deconvolution": 2, "max_unpool": 1}.get(method, 0)
    for one, other in zip(plain, compiled, strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_open_sizes(method):
    layer = Upsampling(2, method)
    specs = [tf.TensorSpec([None, None, None, channels]) for channels in (3, 6)]
    graph = tf.function(lambda maps, guide: layer(maps, guide), input_signature=specs)
    guide = GUIDE[:, :10, :8]
    np.testing.assert_allclose(graph(MAPS, guide), layer(MAPS, guide), atol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="upsampling='cubic' is not one of 'nearest'"):
        Upsampling(2, "cubic")
    with pytest.raises(ValueError, match="factor=3 of an up-sampling must be a power of 2"):
        Upsampling(3)
    with pytest.raises(ValueError, match="needs a guide"):
        Upsampling(2, "max_unpool")(MAPS)
