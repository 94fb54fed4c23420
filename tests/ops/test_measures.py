"""Measurements of masks, worked by hand and on discs."""

import math

import numpy as np
import pytest

from keras_maskrcnn.ops.measures import measures


def test_a_rectangle_by_hand():
    mask = np.zeros((6, 10), bool)
    mask[1:4, 2:8] = True  # 3 rows, 6 columns
    found = measures(mask)
    assert found["area"] == 18 and (found["centroid_x"], found["centroid_y"]) == (5.0, 2.5)
    assert found["equivalent_diameter"] == pytest.approx(2 * math.sqrt(18 / math.pi))
    # Lines that cross it: 3 rows, 6 columns, 3 + 6 - 1 diagonals in each of two directions; each enters and leaves.
    assert found["circumference"] == pytest.approx(math.pi / 8 * (2 * 3 + 2 * 6 + 2 * 2 * 8 / math.sqrt(2)))


def test_a_mask_that_fills_its_array_and_one_pixel():
    pixel = measures(np.ones((1, 1), bool))
    assert pixel["area"] == 1 and (pixel["centroid_x"], pixel["centroid_y"]) == (0.5, 0.5)
    assert pixel["circumference"] == pytest.approx(math.pi / 8 * (4 + 4 / math.sqrt(2)))


@pytest.mark.parametrize("radius", [8, 20, 75])
def test_a_disc(radius):
    y, x = np.mgrid[: 2 * radius + 4, : 2 * radius + 8] + 0.5
    found = measures((x - radius - 4) ** 2 + (y - radius - 2) ** 2 < radius**2)
    assert found["circumference"] == pytest.approx(2 * math.pi * radius, rel=0.02)
    assert found["equivalent_diameter"] == pytest.approx(2 * radius, rel=0.02)
    assert (found["centroid_x"], found["centroid_y"]) == pytest.approx((radius + 4, radius + 2))


def test_the_edge_of_a_hole_counts():
    ring = np.ones((20, 20), bool)
    ring[5:15, 5:15] = False
    hole = measures(np.ones((10, 10), bool))["circumference"]
    outer = measures(np.ones((20, 20), bool))["circumference"]
    assert measures(ring)["circumference"] == pytest.approx(outer + hole, rel=0.03)


def test_no_pixel():
    found = measures(np.zeros((3, 4), bool))
    assert found["area"] == found["circumference"] == found["equivalent_diameter"] == 0
    assert math.isnan(found["centroid_x"]) and math.isnan(found["centroid_y"])
