"""Parts of masks and overlaps, against slow ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_maskrcnn.data.doctor.regions import component_areas, overlaps


def flooded(mask):
    """Sizes of the 8-connected parts by visiting pixel after pixel."""
    left, areas = {tuple(place) for place in np.argwhere(mask).tolist()}, []
    while left:
        queue, area = [left.pop()], 0
        while queue:
            row, column = queue.pop()
            area += 1
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            queue += around
        areas.append(area)
    return sorted(areas, reverse=True)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_parts_are_those_of_a_flood(mask):
    assert component_areas(mask) == flooded(mask)


def test_parts_by_hand():
    assert component_areas(np.eye(5, dtype=bool)) == [5]  # pixels that touch at corners
    assert component_areas(np.array([[1, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]], bool)) == [2, 2, 1]
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    assert component_areas(ring) == [16]
    ring[2, 2] = True
    assert component_areas(ring) == [16, 1]


@given(hnp.arrays(bool, (4, 6, 7)))
def test_overlaps_are_those_of_whole_masks(masks):
    from keras_maskrcnn.data.mini_masks import mask_boxes

    shared = {(i, j): int((masks[i] & masks[j]).sum()) for i in range(4) for j in range(i + 1, 4)}
    assert overlaps(masks, mask_boxes(masks)) == {pair: pixels for pair, pixels in shared.items() if pixels}
