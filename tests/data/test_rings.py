"""Polygons along the edges of pixels: by hand, and exact after COCO's rasteriser."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_maskrcnn.data.rings import joined, polygons, rings, signed_area
from keras_maskrcnn.data.run_lengths import decode, run_lengths


def drawn(polygon, size):
    return decode([run_lengths([polygon.ravel().tolist()], size)], size)[0]


def test_worked_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1, 1:4] = mask[2, 1] = True
    (ring,) = rings(mask)
    assert {tuple(corner) for corner in ring.tolist()} == {(1, 1), (4, 1), (4, 2), (2, 2), (2, 3), (1, 3)}
    assert signed_area(ring) == 4


def test_a_hole_has_a_negative_area():
    mask = np.ones((5, 5), bool)
    mask[1:4, 2] = False
    assert sorted(map(signed_area, rings(mask))) == [-3, 25]
    np.testing.assert_array_equal(drawn(joined(rings(mask)), mask.shape), mask)


def test_an_empty_mask_has_none():
    assert rings(np.zeros((3, 3), bool)) == []


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.1, 0.5, 0.9, 1.0]), st.integers(0, 1000))
def test_any_mask_is_drawn_again_exactly(height, width, density, seed):
    mask = np.random.default_rng(seed).random((height, width)) < density
    parts = rings(mask)
    assert sum(map(signed_area, parts)) == mask.sum()
    if parts:
        np.testing.assert_array_equal(drawn(joined(parts), mask.shape), mask)
        whole = decode([run_lengths(polygons(mask, (2, 1)), (height + 1, width + 2))], (height + 1, width + 2))[0]
        np.testing.assert_array_equal(whole[1:, 2:], mask)
        assert whole.sum() == mask.sum()


def test_parts_are_polygons_of_their_own_unless_there_is_a_hole():
    mask = np.zeros((5, 9), bool)
    mask[1:4, 1:4] = mask[1:4, 6:8] = True
    assert len(polygons(mask)) == 2
    mask[2, 2] = False
    assert len(polygons(mask)) == 1 and polygons(np.zeros((2, 2), bool)) == []


@pytest.mark.parametrize("name", ["coco_tiny", "nuclei"])
def test_real_masks_are_drawn_again_exactly(kmr_data, name):
    from keras_maskrcnn import data

    for found in data.splits(kmr_data / name)[1][:5]:
        for mask in found["masks"]:
            np.testing.assert_array_equal(drawn(joined(rings(mask)), mask.shape), mask)
