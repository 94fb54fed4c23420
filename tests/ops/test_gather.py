"""Rows of each image by its own index, and the first maximum."""

import keras
import numpy as np

from keras_maskrcnn.ops.gather import first_maximum, take_rows


def test_rows_takes_each_image_by_its_own_index():
    values = np.arange(12).reshape(2, 3, 2)
    found = keras.ops.convert_to_numpy(take_rows(values, np.array([[2, 0, 0, 1], [1, 1, 2, 0]], "int32")))
    np.testing.assert_array_equal(found[0], [[4, 5], [0, 1], [0, 1], [2, 3]])
    np.testing.assert_array_equal(found[1], [[8, 9], [8, 9], [10, 11], [6, 7]])


def test_the_first_of_equal_values_is_the_maximum():
    values = np.array([[[1, 3, 3], [-2, -5, -2]], [[-0.0, 0.0, -1], [0, 0, 7]]], "float32")
    for axis in (1, 2, -1):
        found = keras.ops.convert_to_numpy(first_maximum(values, axis))
        np.testing.assert_array_equal(found, values.argmax(axis))
