"""The convolutions at the input of a head."""

import keras
import numpy as np
import pytest

from keras_maskrcnn.layers.conv_stack import ConvStack

REGIONS = np.random.default_rng(0).normal(size=(3, 5, 5, 4)).astype("float32")


@pytest.mark.parametrize("norm", [None, "group", "batch", "frozen_batch"])
def test_it_is_convolution_normalisation_relu(norm):
    stack = ConvStack(2, 6, norm)
    found = stack(REGIONS, training=True)
    assert [conv.use_bias for conv in stack.convs] == [norm is None] * 2
    assert len(stack.norms) == (2 if norm else 0)
    expected = REGIONS
    for i, conv in enumerate(stack.convs):
        expected = keras.ops.conv(expected, conv.kernel, padding="same") + (conv.bias if norm is None else 0)
        if norm:
            expected = stack.norms[i](expected, **({"training": True} if norm == "batch" else {}))
        expected = keras.ops.relu(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (np.asarray(found) > 0).any() and (np.asarray(found) == 0).any()


def test_batch_statistics_are_used_in_training_only():
    stack = ConvStack(1, 6, "batch")
    stack.build(REGIONS.shape)
    before = stack.norms[0].moving_mean.numpy()
    stack(REGIONS)
    np.testing.assert_array_equal(stack.norms[0].moving_mean, before)
    stack(REGIONS, training=True)
    assert np.abs(stack.norms[0].moving_mean.numpy() - before).max() > 0


@pytest.mark.parametrize("norm", [None, "group", "batch", "frozen_batch"])
def test_rows_that_are_not_valid_do_not_change_the_others(norm):
    stack = ConvStack(2, 6, norm)
    stack.build(REGIONS.shape)
    before = stack.get_weights()
    valid = np.array([True, False, True])
    found = stack(REGIONS, training=True, valid=valid)
    moved = stack.get_weights()
    stack.set_weights(before)
    np.testing.assert_allclose(np.asarray(found)[valid], stack(REGIONS[valid], training=True), atol=1e-5)
    for one, other in zip(moved, stack.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_depth_zero_is_the_identity():
    stack = ConvStack(0, 6)
    np.testing.assert_array_equal(stack(REGIONS), REGIONS)
    assert stack.compute_output_shape((None, 5, 5, 4)) == (None, 5, 5, 4)
