"""Selection of active rows and its inverse."""

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.backend.rows import STEP, active_rows, restore_rows


@pytest.mark.parametrize("positions", [[], [0], [5, 2, 63], range(64), range(0, 64, 2), range(STEP), range(STEP + 1)])
def test_active_rows_are_filled_up_to_a_multiple_of_the_step(positions):
    mask = np.isin(np.arange(64), list(positions))
    index = active_rows(tf.constant(mask)).numpy()
    assert set(index.tolist()) >= set(positions)
    assert len(index) == max(-(-mask.sum() // STEP), 1) * STEP
    assert index.tolist() == sorted(set(index.tolist()))


def test_fewer_rows_than_a_step():
    assert active_rows(tf.constant([False, True, False])).numpy().tolist() == [0, 1, 2]


def test_restore_rows_inverts_the_selection():
    mask = tf.constant(np.arange(40) % 7 == 3)
    values = tf.reshape(tf.range(80.0), (40, 2))
    index = active_rows(mask)
    restored = restore_rows(tf.gather(values, index), index, 40).numpy()
    np.testing.assert_array_equal(restored[mask], values[mask])
    assert restored.shape == (40, 2)


def test_static_shapes_take_every_row():
    with backend.static_shapes_scope(True):
        assert active_rows(tf.constant([False, True])).numpy().tolist() == [0, 1]
    with backend.static_shapes_scope(True), backend.dynamic_scope("mask_rows"):
        assert len(active_rows(tf.zeros(2 * STEP, "bool"))) == STEP
        assert backend.lowering("nms") == "fixed_point"
