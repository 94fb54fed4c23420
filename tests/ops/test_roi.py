"""Levels, boxes on a level and the table of pixels: hand-computed values."""

import numpy as np
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


def test_box_to_level_conventions():
    box = np.array([[8, 16, 10, 64]], "float32")
    start, length = roi.box_to_level(box, 1 / 4, aligned=False)
    np.testing.assert_allclose(ops.convert_to_numpy(start), [[4, 2]])
    np.testing.assert_allclose(ops.convert_to_numpy(length), [[12, 1]])  # half a pixel wide becomes one
    start, length = roi.box_to_level(box, 1 / 4, aligned=True)
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


def test_rounded_boxes_by_hand():
    # Divided by 4: corners 0.5, -0.5, 1.5 and 2.25; halves are rounded away from zero. Pixels -1 … 2 and 1 … 2.
    start, length = roi.quantised_to_level(np.array([[2, -2, 6, 9]], "float32"), 1 / 4)
    np.testing.assert_array_equal(ops.convert_to_numpy(start), [[-1, 1]])
    np.testing.assert_array_equal(ops.convert_to_numpy(length), [[4, 2]])
    # Below a half is 0, also for the number whose sum with 0.5 is rounded to 1; an inverted box has one pixel.
    below = np.nextafter(np.float32(0.5), np.float32(0))
    start, length = roi.quantised_to_level(np.array([[below, -below, -7, 0.5]], "float32"), 1)
    np.testing.assert_array_equal(ops.convert_to_numpy(start), [[0, 0]])
    np.testing.assert_array_equal(ops.convert_to_numpy(length), [[2, 1]])
    start, _ = roi.quantised_to_level(np.array([[2, -2, 6, 9]], "float32"), 1 / 4, aligned=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(start), [[-1.5, 0.5]])
