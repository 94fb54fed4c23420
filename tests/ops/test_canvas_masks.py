"""Masks of the whole canvas: by hand, and against loops over their pixels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.ops import canvas_masks

RNG = np.random.default_rng(0)


def numpy(values):
    return keras.ops.convert_to_numpy(values)


def test_assembled_masks_are_sums_of_prototypes():
    prototypes = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
    coefficients = RNG.normal(size=(2, 6, 5)).astype("float32")
    expected = np.zeros((2, 6, 3, 4))
    for b, d, y, x, k in np.ndindex(2, 6, 3, 4, 5):
        expected[b, d, y, x] += prototypes[b, y, x, k] * coefficients[b, d, k]
    np.testing.assert_allclose(canvas_masks.assembled(prototypes, coefficients), expected, atol=1e-5)


def test_cells_of_a_box_and_its_margin():
    # In cells x 2 to 4, y 1.5 to 2: one cell of margin on each side, so 1 ≤ x < 5 and 0.5 ≤ y < 3.
    box = np.array([[[20, 15, 40, 20]]], "float32")
    cells = canvas_masks.in_cells(box, (40, 80), (4, 8))
    np.testing.assert_allclose(cells, [[[2, 1.5, 4, 2]]])
    expected = np.zeros((4, 8), bool)
    expected[1:3, 1:5] = True
    np.testing.assert_array_equal(numpy(canvas_masks.inside(cells, (4, 8)))[0, 0], expected)


def test_cells_are_those_of_the_axis_also_where_no_whole_number_of_pixels_fits():
    np.testing.assert_allclose(
        canvas_masks.in_cells(np.array([55.0, 11.0, 550.0, 22.0], "float32"), (22, 550), (4, 138)), [13.8, 2, 138, 4]
    )


def test_targets_of_masks_inside_boxes():
    masks = np.full((1, 2, 4, 4), 255, "uint8")
    masks[0, 1, :, 2:] = 0  # only the left half
    boxes = np.array([[[8, 8, 24, 16], [0, 0, 32, 32]]], "float32")
    found = numpy(canvas_masks.targets(masks, boxes, (32, 40), (8, 10)))  # cells of 4 pixels
    expected = np.zeros((2, 8, 10))
    expected[0, 2:4, 2:6] = 1
    expected[1, :, :4] = 1
    np.testing.assert_array_equal(found[0], expected)


def test_a_cell_that_is_covered_by_half_is_no_target():
    masks, boxes = np.full((1, 1, 4, 4), 255, "uint8"), np.array([[[2, 0, 8, 4]]], "float32")
    found = numpy(canvas_masks.targets(masks, boxes, (4, 8), (1, 2)))
    np.testing.assert_array_equal(found[0, 0], [[0, 1]])


def test_targets_of_masks_of_the_canvas_are_interpolated():
    masks = RNG.integers(0, 2, (1, 3, 22, 26)).astype("uint8") * 255
    boxes = np.zeros((1, 3, 4), "float32")
    found = numpy(canvas_masks.targets(masks, boxes, (22, 26), (6, 7)))
    smaller = tf.image.resize(masks[0][..., None] / 255.0, (6, 7))[..., 0]
    np.testing.assert_array_equal(found[0], smaller > 0.5)


def test_masks_inside_boxes_by_hand():
    mask = np.arange(16, dtype="float32").reshape(1, 1, 4, 4)
    whole = numpy(canvas_masks.inside_boxes(mask, np.array([[[0, 0, 8, 8]]], "float32"), (8, 8), 4))
    np.testing.assert_allclose(whole, mask, atol=1e-5)
    # The box of the four cells in the middle, on a grid of one cell: their mean.
    middle = numpy(canvas_masks.inside_boxes(mask, np.array([[[2, 2, 6, 6]]], "float32"), (8, 8), 1))
    np.testing.assert_allclose(middle, [[[[7.5]]]])


def cropped_maps(boxes, size, steps):
    """Random maps that are 0 outside the boxes and their margin, as a model predicts them."""
    maps = RNG.uniform(0, 1, (len(boxes), *size)).astype("float32")
    cells = boxes * np.tile(steps, 2)
    return np.where(numpy(canvas_masks.inside(cells[None].astype("float32"), size))[0], maps, 0)


def interpolated(mask, image_size, steps):
    """A map at the centres of the pixels, with the nearest cell beyond its edge."""
    expected = np.zeros(image_size)
    for row, column in np.ndindex(*image_size):
        y, x = (
            np.clip((place + 0.5) * step - 0.5, 0, cells - 1)
            for place, step, cells in zip((row, column), steps[::-1], mask.shape, strict=True)
        )
        top, left = int(y), int(x)
        below, right = min(top + 1, mask.shape[0] - 1), min(left + 1, mask.shape[1] - 1)
        upper = mask[top, left] * (1 - x + left) + mask[top, right] * (x - left)
        lower = mask[below, left] * (1 - x + left) + mask[below, right] * (x - left)
        expected[row, column] = upper * (1 - y + top) + lower * (y - top)
    return expected


@pytest.mark.parametrize("steps", [(0.25, 0.25), (138 / 550, 0.31), (1.7, 0.9)])
def test_pasted_masks_are_interpolated_over_the_whole_image(steps):
    image_size = 31, 40
    size = tuple(int(np.ceil(side * step)) for side, step in zip(image_size, steps[::-1], strict=True))
    boxes = np.array([[3, 4, 20, 18], [0, 0, 40, 31], [30.2, 5.5, 39.9, 6.1], [-9, -9, 2, 3], [50, 50, 60, 60]])
    maps = cropped_maps(boxes, size, np.array(steps))
    pasted = canvas_masks.paste(maps, boxes, image_size, steps)
    for mask, found in zip(maps, pasted, strict=True):
        expected = interpolated(mask, image_size, steps)
        clear = np.abs(expected - 0.5) > 1e-4
        np.testing.assert_array_equal(found[clear], (expected > 0.5)[clear])
    crops = canvas_masks.paste_crops(maps, boxes, image_size, steps, keep=lambda *crop: crop)
    for (left, top, crop), found in zip(crops, pasted, strict=True):
        again = np.zeros(image_size, bool)
        again[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_array_equal(again, found)


def test_a_probability_of_one_half_is_background():
    boxes = np.array([[0, 0, 16, 16]], "float32")
    for value, filled in ((0.5, False), (0.51, True)):
        maps = np.full((1, 4, 4), value, "float32")
        assert canvas_masks.paste(maps, boxes, (16, 16), (0.25, 0.25)).all() == filled


def test_no_objects():
    maps, boxes = np.zeros((0, 4, 4), "float32"), np.zeros((0, 4), "float32")
    assert canvas_masks.paste(maps, boxes, (8, 9), (0.5, 0.5)).shape == (0, 8, 9)
    assert canvas_masks.paste_crops(maps, boxes, (8, 9), (0.5, 0.5)) == []
