"""Sizes of resized images: exact quotients of ints, as numbers and in a TensorFlow graph."""

import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.ops.placement import MAX_SIDE, divided, limited

ROUND = {"even": round, "up": lambda value: math.floor(value + Fraction(1, 2)), "down": math.floor}


@pytest.mark.parametrize("rounding", ROUND)
def test_sizes_are_exact_up_to_the_largest_side(rounding):
    rng = np.random.default_rng(0)
    size, other, first, second = rng.integers(1, 20_000, (4, 5000))
    (size[:2000], first[:2000]), other[:2000] = (
        rng.integers(1, 300, (2, 2000)),
        2 * rng.integers(1, 20, 2000),
    )  # with many halves
    size[-1] = other[-1] = first[-1] = second[-1] = MAX_SIDE
    round_ = ROUND[rounding]
    expected = [
        max(1, min(round_(Fraction(side * top, bottom)), round_(Fraction(side * second_top, side))))
        for side, bottom, top, second_top in zip(*(a.tolist() for a in (size, other, first, second)), strict=True)
    ]
    np.testing.assert_array_equal(limited(size, [(first, other), (second, size)], rounding), expected)
    size, other, first, second = (tf.constant(values, tf.int32) for values in (size, other, first, second))
    np.testing.assert_array_equal(limited(size, [(first, other), (second, size)], rounding, tf), expected)


def test_a_size_is_at_least_one():
    assert limited(np.array([3, 4000]), [(1, 20)], "down").tolist() == [1, 200]


class Float32:
    """An int that is divided in float32, rounded to nearest or to zero, as by engines without a division of ints."""

    def __init__(self, value):
        self.value = value

    def __floordiv__(self, other):
        return int(np.float32(self.value) / np.float32(other))

    def __sub__(self, other):
        return Float32(self.value - other)


def test_division_in_float32_is_corrected():
    rng = np.random.default_rng(0)
    for quotient, denominator in rng.integers(1, 30_000, (5000, 2)).tolist():
        for numerator in (quotient * denominator - 1, quotient * denominator, quotient * denominator + 1):
            assert divided(Float32(numerator), denominator) == numerator // denominator
