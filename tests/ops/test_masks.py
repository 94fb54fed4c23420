"""Mask targets and pasting: hand-computed values, slow references, and round trip."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn.data.mini_masks import crop_masks, mask_boxes
from keras_maskrcnn.ops.losses import binary_cross_entropy, masked_mean
from keras_maskrcnn.ops.masks import mask_targets, paste, sampled_mask_targets, whole_pixel_boxes


def targets(masks, boxes, rois, size):
    rows = (np.asarray(masks), np.array(boxes, "float32"), np.array(rois, "float32"))
    return keras.ops.convert_to_numpy(mask_targets(*rows, size))


# Targets ------------------------------------------------------------------------------------------------------------


def test_targets_of_the_own_box_equal_the_mask():
    mask = np.array([[[255, 0], [51, 255]]], "uint8")
    np.testing.assert_allclose(targets(mask, [[10, 20, 14, 30]], [[10, 20, 14, 30]], 2), [[[1, 0], [0.2, 1]]])


def test_targets_by_hand():
    mask = np.array([[[255, 0], [255, 255]]], "uint8")  # cells of 2 × 2 pixels in [0, 0, 4, 4]
    # The region [1, 1, 3, 3] is the centre: each of its 4 cells of one pixel is inside one mask cell.
    np.testing.assert_allclose(targets(mask, [[0, 0, 4, 4]], [[1, 1, 3, 3]], 2), [[[1, 0], [1, 1]]])
    # In one cell: three quarters of the centre are covered.
    np.testing.assert_allclose(targets(mask, [[0, 0, 4, 4]], [[1, 1, 3, 3]], 1), [[[0.75]]])
    # A region of twice the size: the outer cells are empty, the inner cells equal the mask.
    outside = [[[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]
    np.testing.assert_allclose(targets(mask, [[0, 0, 4, 4]], [[-2, -2, 6, 6]], 4), outside)
    # Moved by a quarter of a cell to the right: cell 0 = ¾ of mask column 0, ¼ of column 1.
    moved = targets(mask, [[0, 0, 4, 4]], [[0.5, 0, 4.5, 4]], 2)
    np.testing.assert_allclose(moved, [[[0.75, 0], [1, 0.75]]])


def test_targets_of_disjoint_regions_are_empty():
    full = np.full((4, 3, 3), 255, "uint8")
    rois = [[20, 0, 30, 10], [0, 20, 10, 30], [-30, -30, -20, -20], [10, 0, 20, 10]]
    assert not targets(full, [[0, 0, 10, 10]] * 4, rois, 5).any()


def slow_targets(mask, box, roi, size):
    """Sum over all mask cells of the area of overlap with each target cell, in float64."""
    cells, result = len(mask), np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        y1, y2 = (roi[1] + (roi[3] - roi[1]) * k / size for k in (i, i + 1))
        x1, x2 = (roi[0] + (roi[2] - roi[0]) * k / size for k in (j, j + 1))
        for r, c in np.ndindex(cells, cells):
            v1, v2 = (box[1] + (box[3] - box[1]) * k / cells for k in (r, r + 1))
            u1, u2 = (box[0] + (box[2] - box[0]) * k / cells for k in (c, c + 1))
            shared = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
            result[i, j] += mask[r, c] / 255 * shared / ((x2 - x1) * (y2 - y1))
    return result


box = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(2, 40)] * 2).map(
    lambda b: [b[0] / 2, b[1] / 2, (b[0] + b[2]) / 2, (b[1] + b[3]) / 2]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(box, box), min_size=1, max_size=3), st.integers(0, 1000))
def test_targets_are_exact_area_integrals(pairs, seed):
    masks = np.random.default_rng(seed).integers(0, 256, (len(pairs), 5, 5)).astype("uint8")
    boxes, rois = zip(*pairs, strict=True)
    expected = [slow_targets(*row, 3) for row in zip(masks, boxes, rois, strict=True)]
    np.testing.assert_allclose(targets(masks, boxes, rois, 3), expected, atol=1e-4)


def test_targets_agree_with_supersampling():
    rng = np.random.default_rng(5)
    mask, box, roi, size, fine = rng.integers(0, 256, (6, 6)), [3, 4, 19, 23.5], [5.3, 1.2, 16.9, 25.1], 4, 200
    # `fine`² points in each target cell, each reads the mask cell that contains it.
    x = roi[0] + (np.arange(size * fine) + 0.5) / (size * fine) * (roi[2] - roi[0])
    y = roi[1] + (np.arange(size * fine) + 0.5) / (size * fine) * (roi[3] - roi[1])
    column = np.floor((x - box[0]) / (box[2] - box[0]) * 6).astype(int)
    row = np.floor((y - box[1]) / (box[3] - box[1]) * 6).astype(int)
    padded = np.pad(mask, 40)  # empty outside the box
    points = padded[row[:, None] + 40, column[None, :] + 40] / 255
    expected = points.reshape(size, fine, size, fine).mean(axis=(1, 3))
    np.testing.assert_allclose(targets(mask[None], [box], [roi], size)[0], expected, atol=0.01)


def test_targets_stay_in_the_unit_interval_far_from_the_origin():
    rng = np.random.default_rng(1)
    corner = rng.uniform(900, 1300, (200, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (200, 2))], axis=1)
    rois = boxes + rng.uniform(-3, 3, (200, 4))
    rois[:, 2:] = np.maximum(rois[:, 2:], rois[:, :2] + 1)
    found = targets(np.full((200, 112, 112), 255, "uint8"), boxes, rois, 28)
    assert found.min() >= 0 and found.max() <= 1 + 1e-3


@pytest.mark.parametrize("place", [0, 100, 900, 1300, 4000])
@pytest.mark.parametrize("extent", [1, 37, 100])
def test_padded_regions_give_finite_targets_and_gradients(place, extent):
    """Regions of zeros matched with a distant object, as in the empty slots of a static graph."""
    masks = tf.fill((3, 112, 112), tf.constant(255, "uint8"))
    object_box = [place, place, place + extent, place + extent]
    boxes = tf.constant([object_box, [0, 0, 0, 0], [0, 0, 0, 0]], "float32")
    rois = tf.constant([[0, 0, 0, 0], object_box, [0, 0, 0, 0]], "float32")
    logits = tf.zeros((3, 28, 28))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        error = binary_cross_entropy(logits, mask_targets(masks, boxes, rois, 28))
        loss = masked_mean(error, tf.zeros((3, 1, 1), bool))
    assert np.isfinite(error).all()
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, logits), np.zeros((3, 28, 28)))


# Pasting ------------------------------------------------------------------------------------------------------------


def test_paste_by_hand():
    half = [[[1, 0], [1, 0]]]
    expected = np.zeros((6, 6), bool)
    expected[2:4, 2] = True  # one cell per pixel
    np.testing.assert_array_equal(paste(half, [[2, 2, 4, 4]], (6, 6))[0], expected)
    # Half a pixel to the left: the centres of columns 1, 2, 3 sample at -½, ½, 1½ cells: 0.5, 0.5, 0.
    expected[2:4, 1] = True
    np.testing.assert_array_equal(paste(half, [[1.5, 2, 3.5, 4]], (6, 6))[0], expected)
    assert not paste(half, [[1.5, 2, 3.5, 4]], (6, 6), threshold=0.51).any()


def test_paste_is_not_truncated_to_whole_pixels():
    full = np.ones((1, 4, 4), "float32")
    # Columns whose centres lie in [2.6, 6.4]: 3 (3.5) to 5 (5.5); in [2.4, 6.6]: 2 to 6. Rows 1 to 8 are inside.
    assert paste(full, [[2.6, 1, 6.4, 9]], (10, 10))[0][5].nonzero()[0].tolist() == [3, 4, 5]
    assert paste(full, [[2.4, 1, 6.6, 9]], (10, 10))[0][5].nonzero()[0].tolist() == [2, 3, 4, 5, 6]


def test_boxes_of_one_pixel_and_smaller():
    full = np.ones((3, 28, 28), "float32")
    pasted = paste(full, [[3, 4, 4, 5], [3.4, 4.4, 3.6, 4.6], [3.6, 4.6, 3.9, 4.9]], (8, 8))
    only = np.zeros((8, 8), bool)
    only[4, 3] = True
    np.testing.assert_array_equal(pasted[0], only)
    np.testing.assert_array_equal(pasted[1], only)  # smaller than a pixel, but contains its centre
    assert not pasted[2].any()


@pytest.mark.parametrize(
    "box", [[-9, -9, -1, -1], [50, 2, 60, 9], [2, 50, 9, 60], [3, 3, 3, 3], [5, 2, 4, 9], [0, 0, 0, 0]]
)
def test_boxes_outside_or_without_area_paste_nothing(box):
    assert not paste(np.ones((1, 7, 7)), [box], (20, 30)).any()


def test_paste_without_masks():
    pasted = paste(np.zeros((0, 28, 28)), np.zeros((0, 4)), (5, 7))
    assert pasted.shape == (0, 5, 7) and pasted.dtype == bool


def slow_paste(mask, box, height, width):
    """Bilinear samples at the centres of all pixels, in loops; the mask is zero outside its cells."""
    size, padded, result = len(mask), np.pad(mask.astype("float64"), 1), np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        v = (y + 0.5 - box[1]) / (box[3] - box[1]) * size - 0.5
        u = (x + 0.5 - box[0]) / (box[2] - box[0]) * size - 0.5
        if -1 < v < size and -1 < u < size:
            i, j = int(np.floor(v)), int(np.floor(u))
            a, b, cells = v - i, u - j, padded[i + 1 : i + 3, j + 1 : j + 3]
            result[y, x] = np.array([1 - a, a]) @ cells @ np.array([1 - b, b])
    return result


@settings(max_examples=30, deadline=None)
@given(box, st.integers(-30, 30), st.integers(-30, 30), st.integers(0, 1000))
def test_paste_against_the_slow_reference(box, right, down, seed):
    mask = np.random.default_rng(seed).uniform(size=(6, 6)).astype("float32")
    box = np.array(box) + np.array([right, down, right, down])
    expected = slow_paste(mask, box, 20, 24)
    pasted = paste([mask], [box], (20, 24))[0]
    clear = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(pasted[clear], expected[clear] >= 0.5)


@settings(max_examples=30, deadline=None)
@given(box, st.integers(-40, 40), st.integers(-40, 40), st.integers(0, 1000))
def test_a_box_partly_outside_equals_a_crop_of_a_larger_image(box, right, down, seed):
    mask = np.random.default_rng(seed).integers(0, 5, (1, 8, 8)) / 4
    box = np.array([box]) + np.array([right, down, right, down])
    large = paste(mask, box + 64, (20 + 128, 24 + 128))
    np.testing.assert_array_equal(paste(mask, box, (20, 24)), large[:, 64:-64, 64:-64])


def test_a_hundred_masks_are_pasted_into_their_boxes():
    rng = np.random.default_rng(2)
    corner = rng.uniform(-20, 300, (100, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(15, 120, (100, 2))], axis=1)
    pasted = paste(np.ones((100, 28, 28)), boxes, (240, 320))
    assert pasted.shape == (100, 240, 320)
    y, x = np.mgrid[:240, :320] + 0.5
    for mask, (x1, y1, x2, y2) in zip(pasted, boxes, strict=True):
        outside = (x < x1) | (x > x2) | (y < y1) | (y > y2)
        cell_x, cell_y = (x2 - x1) / 28, (y2 - y1) / 28
        core = (x > x1 + cell_x) & (x < x2 - cell_x) & (y > y1 + cell_y) & (y < y2 - cell_y)
        assert mask[core].all() and not mask[outside].any()


def blob(height, width, seed):
    """A filled ellipse with a notch, bool [height, width]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.uniform(0.4, 0.6, 2) * [height, width]
    ry, rx = rng.uniform(0.2, 0.35, 2) * [height, width]
    return (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1) & ((y - cy + ry) ** 2 + (x - cx) ** 2 > (ry / 2) ** 2)


@pytest.mark.parametrize("shift", [[0, 0, 0, 0], [-7.3, 4.1, 9.6, 12.2]])
@pytest.mark.parametrize("seed", range(4))
def test_pasting_the_targets_restores_the_mask(seed, shift):
    mask = blob(120, 160, seed)
    box = mask_boxes(mask[None])
    region = box + np.array([shift], "float32")
    target = targets(crop_masks(mask[None], box, 112), box, region, 28)
    pasted = paste(target, region, (120, 160))[0]
    y, x = np.mgrid[:120, :160] + 0.5
    x1, y1, x2, y2 = region[0]
    wanted = mask & (x > x1) & (x < x2) & (y > y1) & (y < y2)
    assert (pasted & wanted).sum() / (pasted | wanted).sum() > 0.95


# torchvision's conventions ------------------------------------------------------------------------------------------


def slow_roi_align(mask, roi, size):
    """torchvision.ops.roi_align of one channel with sampling_ratio=-1 and aligned=False, in loops."""
    height, width = mask.shape
    side = [max(roi[i + 2] - roi[i], 1.0) / size for i in (0, 1)]  # bin size: x, y
    count = [int(np.ceil(s)) for s in side]
    result = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        for k, m in np.ndindex(count[1], count[0]):
            y = roi[1] + side[1] * (i + (k + 0.5) / count[1])
            x = roi[0] + side[0] * (j + (m + 0.5) / count[0])
            if not (-1 <= y <= height and -1 <= x <= width):
                continue
            y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
            y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
            v, u = y - y0, x - x0
            corners = mask[y0 : y0 + 2, x0 : x0 + 2] / 255
            result[i, j] += np.array([1 - v, v]) @ corners @ np.array([1 - u, u]) / (count[0] * count[1])
    return result


@pytest.mark.parametrize("jit", [False, True])
def test_sampled_targets_equal_roi_align_with_adaptive_sampling(jit):
    rng = np.random.default_rng(0)
    masks = (rng.random((3, 20, 28)) > 0.4).astype("uint8") * 255
    # Small, large, partly outside, smaller than a pixel, far outside, the full canvas.
    rois = [
        [3, 4, 9, 8],
        [1.3, 0.2, 27.9, 19.6],
        [-5, -4, 9, 15],
        [7.2, 7.2, 7.6, 7.3],
        [40, 40, 50, 50],
        [0, 0, 28, 20],
    ]
    index = [0, 1, 2, 0, 1, 2]
    function = tf.function(lambda m, i, r: sampled_mask_targets(m, i, r, 4), jit_compile=jit)
    found = function(masks, np.array(index, "int32"), np.array(rois, "float32")).numpy()
    for answer, i, roi in zip(found, index, rois, strict=True):
        np.testing.assert_allclose(answer, slow_roi_align(masks[i], roi, 4), atol=2e-6)


def test_whole_pixel_boxes_by_hand():
    # 2 cells and a ring: the box [1, 1, 5.4, 9] about (3.2, 5), twice as large, is [-1.2, -3, 7.6, 13]; cut down to
    # integers [-1, -3, 7, 13], of 9 × 17 pixels with the last one; a ring of a quarter of that is left out.
    found = whole_pixel_boxes([[1, 1, 5.4, 9]], 2)
    np.testing.assert_allclose(found, [[-1 + 9 / 4, -3 + 17 / 4, 8 - 9 / 4, 14 - 17 / 4]])


def slow_torchvision_paste(mask, box, height, width):
    """torchvision's paste_mask_in_image, in loops."""
    cells = len(mask) + 2
    mask = np.pad(mask, 1)
    half = (box[2:] - box[:2]) / 2 * cells / (cells - 2)
    centre = (box[2:] + box[:2]) / 2
    (x1, y1), (x2, y2) = (np.trunc(c).astype(int) for c in (centre - half, centre + half))
    columns, rows = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    result = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        if not (y1 <= y <= y2 and x1 <= x <= x2):
            continue
        v = np.clip((y - y1 + 0.5) * cells / rows - 0.5, 0, cells - 1)
        u = np.clip((x - x1 + 0.5) * cells / columns - 0.5, 0, cells - 1)
        v0, u0 = min(int(v), cells - 2), min(int(u), cells - 2)
        corners = mask[v0 : v0 + 2, u0 : u0 + 2]
        result[y, x] = np.array([1 - v + v0, v - v0]) @ corners @ np.array([1 - u + u0, u - u0])
    return result


def test_pasting_into_whole_pixels_equals_torchvision():
    rng = np.random.default_rng(1)
    corner = rng.uniform(-5, 30, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.2, 25, (40, 2))], axis=1).astype("float32")
    masks = rng.random((40, 7, 7)).astype("float32")
    found = paste(masks, boxes, (32, 40), how="whole_pixels")
    for answer, mask, box in zip(found, masks, boxes, strict=True):
        expected = slow_torchvision_paste(mask, box.astype("float64"), 32, 40)
        clear = np.abs(expected - 0.5) > 1e-4
        np.testing.assert_array_equal(answer[clear], (expected >= 0.5)[clear])
