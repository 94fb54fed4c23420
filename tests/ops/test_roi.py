"""Levels, sample positions and taps: hand-computed values."""

import numpy as np
import pytest
from keras import ops

from keras_maskrcnn.ops import roi


def square(side):
    return [10.0, 20.0, 10.0 + side, 20.0 + side]


def test_levels_follow_the_paper():
    # k = floor(4 + log2(side / 224)): 224 is P4, exactly 112 is P3, slightly less is P2.
    boxes = np.array([square(s) for s in (224, 448, 447, 112, 111.9, 20, 2000)], "float32")
    assert ops.convert_to_numpy(roi.assign_levels(boxes)).tolist() == [4, 5, 4, 3, 2, 2, 5]


def test_levels_use_the_area_not_a_side():
    boxes = np.array([[0, 0, 448, 112], [0, 0, 56, 896]], "float32")
    assert ops.convert_to_numpy(roi.assign_levels(boxes)).tolist() == [4, 4]


def test_degenerate_boxes_go_to_the_finest_level():
    nan = float("nan")
    boxes = np.array([[5, 5, 5, 5], [5, 5, 500, 5], [500, 5, 5, 400], [nan, 0, 500, 500]], "float32")
    levels = roi.assign_levels(boxes[None])
    assert ops.convert_to_numpy(levels).tolist() == [[2, 2, 2, 2]]
    assert levels.dtype == "int32" or "int32" in str(levels.dtype)


def test_levels_with_other_canonical_size():
    boxes = np.array([square(s) for s in (56, 28, 200)], "float32")
    levels = roi.assign_levels(boxes, min_level=3, max_level=4, canonical_size=56, canonical_level=4)
    assert ops.convert_to_numpy(levels).tolist() == [4, 3, 4]


def taps(start, length, size, bins=1, samples=2):
    values = (np.array([v], t) for v, t in ((start, "float32"), (length, "float32"), (size, "int32")))
    pixels, weights = roi.axis_taps(*values, bins, samples)
    return ops.convert_to_numpy(pixels)[0, :, :].tolist(), ops.convert_to_numpy(weights)[0]


def test_taps_inside():
    # A box from 1 to 3 with one bin: samples at 1.5 and 2.5, each half of two neighbours.
    pixels, weights = taps(1, 2, 10)
    assert pixels == [[1, 2, 2, 3]]
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0.5, 0.5]])


def test_taps_at_the_border():
    # Samples at -1 and at 3 = size, the outermost positions inside (pixels 0 and 2); beyond them all weights are 0.
    pixels, weights = taps(-3, 8, 3)
    assert pixels == [[0, 2, 1, 2]]
    np.testing.assert_allclose(weights, [[1, 1, 0, 0]])
    _, weights = taps(-3.02, 8.04, 3)
    assert not weights.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_taps_of_invalid_boxes_are_zero_and_in_range(bad):
    pixels, weights = taps(bad, 1, 5)
    assert not weights.any()
    assert all(0 <= p < 5 for p in pixels[0])


def test_box_to_level_conventions():
    box = np.array([[8, 16, 10, 64]], "float32")
    start, length = roi.box_to_level(box, 4, aligned=False)
    np.testing.assert_allclose(ops.convert_to_numpy(start), [[4, 2]])
    np.testing.assert_allclose(ops.convert_to_numpy(length), [[12, 1]])  # half a pixel wide becomes one
    start, length = roi.box_to_level(box, 4, aligned=True)
    np.testing.assert_allclose(ops.convert_to_numpy(start), [[3.5, 1.5]])
    np.testing.assert_allclose(ops.convert_to_numpy(length), [[12, 0.5]])


def test_table_and_layout_agree():
    features = [np.arange(2 * h * w * 1, dtype="float32").reshape(2, h, w, 1) for h, w in ((4, 6), (2, 3))]
    table = ops.convert_to_numpy(roi.flatten_pyramid(features))
    layout = ops.convert_to_numpy(roi.pyramid_layout(features)).tolist()
    assert layout == [[4, 6, 0], [2, 3, 48]]
    level, image, y, x = 1, 1, 1, 2
    height, width, first = layout[level]
    assert table[first + image * height * width + y * width + x, 0] == features[level][image, y, x, 0]
