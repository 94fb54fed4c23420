import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import data
from keras_maskrcnn.data.mini_masks import resample


def iou(one, other):
    return (one & other).sum((1, 2)) / (one | other).sum((1, 2))


def test_a_box_filled_by_its_mask_is_fully_covered():
    masks = np.ones((1, 20, 30), bool)
    boxes = np.array([[0, 0, 30, 20]], np.float32)
    assert (data.crop_masks(masks, boxes, 7) == 255).all()


def test_half_a_box():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, :, :4] = True
    crop = data.crop_masks(masks, np.array([[0, 0, 8, 8]]), 8)[0]
    assert (crop[:, :4] == 255).all() and (crop[:, 4:] == 0).all()


def test_shrinking_averages_and_enlarging_interpolates():
    chess = np.indices((8, 8)).sum(0)[None] % 2 == 0
    small = data.crop_masks(chess, np.array([[0, 0, 8, 8]]), 2)
    assert np.abs(small.astype(int) - 128).max() <= 12
    edge = np.array([[[False, True]]])
    assert data.crop_masks(edge, np.array([[0, 0, 2, 1]]), 4)[0, 0].tolist() == [0, 64, 191, 255]


def test_a_float_box_cuts_between_pixels():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :, 2:] = True
    assert data.crop_masks(masks, np.array([[1.5, 0, 2.5, 4]]), 1)[0, 0, 0] == pytest.approx(128, abs=1)


def test_resampling_a_part_equals_resampling_the_whole():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    whole = resample(image, [0, 0, 120, 90], (45, 60))
    np.testing.assert_array_equal(resample(image, [40, 20, 100, 70], (25, 30)), whole[10:35, 20:50])


@pytest.mark.parametrize("box", [[3, 3, 4, 4], [0, 0, 0.01, 0.01], [9.7, 7.9, 10, 8], [2.25, 0, 2.5, 8]])
def test_objects_of_a_pixel_and_less(box):
    masks = np.zeros((1, 8, 10), bool)
    masks[0, int(box[1]) : int(np.ceil(box[3])), int(box[0]) : int(np.ceil(box[2]))] = True
    assert (data.crop_masks(masks, np.array([box], np.float32), 28) == 255).all()


def test_no_masks():
    assert data.crop_masks(np.zeros((0, 5, 5), bool), np.zeros((0, 4)), 28).shape == (0, 28, 28)
    assert data.paste_masks(np.zeros((0, 28, 28), np.uint8), np.zeros((0, 4)), (5, 6)).shape == (0, 5, 6)
    assert data.mask_boxes(np.zeros((0, 5, 5), bool)).shape == (0, 4)


def test_boxes_of_masks():
    masks = np.zeros((2, 6, 7), bool)
    masks[0, 2:4, 1:6] = True
    assert data.mask_boxes(masks).tolist() == [[1, 2, 6, 4], [0, 0, 0, 0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(4, 60))
def test_round_trip_of_blobs_smaller_than_the_crop_is_exact(seed, height, width):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, height, width)) < 0.5
    masks[:, 1, 2] = True
    boxes = data.mask_boxes(masks)
    pasted = data.paste_masks(data.crop_masks(masks, boxes, 60 * 8), boxes, (height, width))
    np.testing.assert_array_equal(pasted, masks)


def test_paste_stays_inside_the_box_and_the_image():
    crops = np.full((1, 14, 14), 255, np.uint8)
    pasted = data.paste_masks(crops, np.array([[-3.0, 2.4, 5.5, 4.6]]), (6, 8))[0]
    assert pasted.sum() == 3 * 5 and pasted[2:5, :5].all()  # centres 2.5 to 4.5 vertically, 0.5 to 4.5 horizontally


def test_round_trip_on_real_masks(kmr_data):
    samples = list(data.PennFudan(kmr_data / "PennFudanPed"))[:60]
    mean = {}
    for size in (28, 56, 112):
        found = []
        for sample in samples:
            masks, boxes = sample["masks"], sample["boxes"]
            found.extend(iou(data.paste_masks(data.crop_masks(masks, boxes, size), boxes, masks.shape[1:]), masks))
        mean[size] = float(np.mean(found))
    print("mean IoU after the round trip, by M:", mean)
    assert 0.95 < mean[28] < mean[56] < mean[112]
    assert mean[112] >= 0.97
