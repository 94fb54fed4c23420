"""Anchors: values, order and number."""

import numpy as np
import pytest

from keras_maskrcnn.ops.anchors import cell_anchors, grid_anchors, pyramid_anchors


def test_cell_anchors_have_the_area_and_the_ratio():
    anchors = cell_anchors((32, 64), (0.5, 1.0, 2.0))
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    np.testing.assert_allclose(width * height, [32**2, 64**2] * 3, rtol=1e-5)
    np.testing.assert_allclose(height / width, np.repeat([0.5, 1, 2], 2), rtol=1e-5)
    np.testing.assert_allclose(anchors[:, :2], -anchors[:, 2:])
    assert anchors.dtype == "float32"


def test_rounded_cell_anchors_equal_torchvision():
    # √0.5 · 32 = 22.6 high and 45.25 wide: half of that is 11.3 and 22.6.
    expected = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    np.testing.assert_array_equal(cell_anchors((32,), (0.5, 1.0, 2.0), rounded=True), expected)


def test_square_anchors_have_the_width_as_their_height():
    anchors = cell_anchors((24,), (1.0, 2.0, 0.5), square=True)
    np.testing.assert_allclose(anchors[:, 2:] - anchors[:, :2], [[24] * 2, [24 / 2**0.5] * 2, [24 * 2**0.5] * 2])


def test_centres_of_the_cells_of_any_canvas():
    (level,) = pyramid_anchors((550, 20), (8,), [(4,)], (1,), offset=0.5, spacing="cells")
    centres = ((level[:, :2] + level[:, 2:]) / 2).reshape(69, 3, 2)
    np.testing.assert_allclose(centres[:, 0, 1], (np.arange(69) + 0.5) * 550 / 69, rtol=1e-5)
    np.testing.assert_allclose(centres[0, :, 0], (np.arange(3) + 0.5) * 20 / 3, rtol=1e-5)


def test_grid_anchors_by_hand():
    cell = np.array([[-1, -2, 1, 2], [-3, -3, 3, 3]], "float32")
    anchors = grid_anchors(2, 3, 8, cell)
    # Rows outermost: (y, x) = (0, 0), (0, 8), (0, 16), (8, 0), …, two anchors each.
    assert anchors.shape == (12, 4)
    np.testing.assert_array_equal(anchors[0], [-1, -2, 1, 2])
    np.testing.assert_array_equal(anchors[3], [5, -3, 11, 3])
    np.testing.assert_array_equal(anchors[6], [-1, 6, 1, 10])
    np.testing.assert_array_equal(anchors[11], [13, 5, 19, 11])


def test_offset_moves_the_centres_by_a_fraction_of_the_spacing():
    cell = np.array([[-1, -1, 1, 1]], "float32")
    moved = grid_anchors(2, 2, 16, cell, offset=0.5) - grid_anchors(2, 2, 16, cell)
    np.testing.assert_array_equal(moved, np.full((4, 4), 8))


@pytest.mark.parametrize("image_size", [(64, 96), (70, 33), (1, 1)])
def test_pyramid_counts_follow_the_ceiling_of_the_division(image_size):
    strides = (4, 8, 16, 32, 64)
    levels = pyramid_anchors(image_size, strides, [(8 * s,) for s in strides], (0.5, 1, 2))
    for stride, anchors in zip(strides, levels, strict=True):
        assert anchors.dtype == "float32"
        assert len(anchors) == 3 * int(np.ceil(image_size[0] / stride)) * int(np.ceil(image_size[1] / stride))
        np.testing.assert_allclose(anchors[1], np.array([-4, -4, 4, 4]) * stride)


def test_800_by_1344_has_the_known_number_of_anchors():
    # 3 · (200·336 + 100·168 + 50·84 + 25·42 + 13·21): as for Detectron's FPN.
    strides = (4, 8, 16, 32, 64)
    levels = pyramid_anchors((800, 1344), strides, [(s,) for s in strides], (0.5, 1, 2))
    assert sum(map(len, levels)) == 268569


def test_sizes_for_every_level_are_required():
    with pytest.raises(ValueError, match="zip"):
        pyramid_anchors((64, 64), (4, 8), [(32,)], (1,))


def test_canvas_spacing_equals_torchvision():
    """800×1088 has 13×17 cells on P6: spacing 800 // 13 = 61 and 1088 // 17 = 64 pixels; P2 … P5 divide evenly."""
    sizes = ((32,), (64,), (128,), (256,), (512,))
    strides = (4, 8, 16, 32, 64)
    by_stride, by_canvas = (
        pyramid_anchors((800, 1088), strides, sizes, (0.5, 1, 2), rounded=True, spacing=spacing)
        for spacing in ("stride", "canvas")
    )
    for ours, theirs in zip(by_stride[:4], by_canvas[:4], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    moved = (by_canvas[4] - by_stride[4]).reshape(13, 17, 3, 4)
    np.testing.assert_array_equal(moved[..., [0, 2]], 0)
    np.testing.assert_array_equal(moved[..., 1], -3.0 * np.arange(13)[:, None, None] * np.ones((13, 17, 3)))
