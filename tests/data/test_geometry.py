import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import data
from keras_maskrcnn.data import geometry
from keras_maskrcnn.ops.placement import fitted_size

SHAPES = data.Shapes(40, image_size=(48, 64), seed=5)
KEYS = ("image", "boxes", "labels", "masks", "crowd")


def crop(sample, box, min_visible=0.25):
    """The part of a sample inside a box of whole pixels."""
    x1, y1, x2, y2 = box
    size, offset, frame = np.array(sample["image"].shape[:2]), np.array([-y1, -x1]), np.array([y2 - y1, x2 - x1])
    return geometry.reframe(sample, size, offset, frame, min_visible, np.asarray)


def rectangle(x1, y1, x2, y2):
    masks = np.zeros((1, 32, 48), bool)
    masks[0, y1:y2, x1:x2] = True
    image = np.zeros((32, 48, 3), np.uint8)
    boxes, labels = data.mask_boxes(masks), np.ones(1, np.int32)
    return {"image": image, "boxes": boxes, "labels": labels, "masks": masks, "crowd": np.zeros(1, bool)}


def assert_same(one, other):
    for key in KEYS:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@given(st.integers(0, 39), st.sampled_from(["flip", "vertical", "transpose"]))
@settings(max_examples=60, deadline=None)
def test_twice_is_the_identity_and_boxes_follow_masks(index, kind):
    def move(sample):
        return geometry.transpose(sample) if kind == "transpose" else geometry.flip(sample, vertical=kind == "vertical")

    before = SHAPES[index]
    after = move(before)
    np.testing.assert_array_equal(after["boxes"], data.mask_boxes(after["masks"]))
    data.validate(after, 3)
    assert_same(move(after), before)
    assert not np.array_equal(after["image"], before["image"])


def test_flip_worked_by_hand(sample):
    before = sample([[1, 2, 4, 9]])  # 32 high, 48 wide
    assert geometry.flip(before)["boxes"].tolist() == [[44, 2, 47, 9]]
    assert geometry.flip(before, vertical=True)["boxes"].tolist() == [[1, 23, 4, 30]]
    assert geometry.transpose(before)["boxes"].tolist() == [[2, 1, 9, 4]]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_cropped_boxes_are_the_boxes_of_the_cropped_masks(draw):
    before = SHAPES[draw.draw(st.integers(0, 39))]
    x1, y1 = draw.draw(st.integers(-10, 60)), draw.draw(st.integers(-10, 44))
    x2, y2 = draw.draw(st.integers(x1 + 1, 80)), draw.draw(st.integers(y1 + 1, 60))
    after = crop(before, (x1, y1, x2, y2), min_visible=0)
    assert after["image"].shape == (y2 - y1, x2 - x1, 3)
    np.testing.assert_array_equal(after["boxes"], data.mask_boxes(after["masks"]))
    data.validate(after, 3)
    padded = np.pad(before["masks"], ((0, 0), (20, 20), (20, 20)))[:, 20 + y1 : 20 + y2, 20 + x1 : 20 + x2]
    remaining = padded.any((1, 2))
    np.testing.assert_array_equal(after["masks"], padded[remaining])
    np.testing.assert_array_equal(after["labels"], before["labels"][remaining])


def test_cropped_pixels_and_padding(sample):
    before = sample([])
    after = crop(before, (-2, 1, 10, 5))
    np.testing.assert_array_equal(after["image"][:, 2:], before["image"][1:5, :10])
    assert not after["image"][:, :2].any()


@pytest.mark.parametrize(("min_visible", "kept"), [(0.2, [1, 2]), (0.3, [1]), (0, [1, 2])])
def test_instances_with_too_little_visible_area_are_dropped(sample, min_visible, kept):
    before = sample([[0, 0, 10, 10], [7, 20, 17, 30], [30, 0, 40, 10]], labels=[1, 2, 3])
    after = crop(before, (0, 0, 15, 32), min_visible=0.9)
    assert after["labels"].tolist() == [1]
    after = crop(before, (0, 0, 9, 32), min_visible=min_visible)  # 90 % of the first, 20 % of the second
    assert after["labels"].tolist() == kept
    assert after["boxes"][0].tolist() == [0, 0, 9, 10]


def test_a_cropped_box_fits_the_cropped_mask(sample):
    before = sample([[0, 0, 20, 20]])
    before["masks"][0] = np.tri(32, 48, dtype=bool) & before["masks"][0]  # the lower left half
    after = crop(before, (0, 0, 40, 5), min_visible=0)
    assert after["boxes"].tolist() == [[0, 0, 5, 5]]  # not as wide as the box


def test_an_uncropped_box_keeps_its_annotated_edges(sample):
    before = sample([[4, 4, 10, 10]])
    before["boxes"] = np.array([[3.5, 4.25, 10.5, 9.75]], np.float32)
    assert crop(before, (2, 1, 30, 30))["boxes"].tolist() == [[1.5, 3.25, 8.5, 8.75]]


def test_a_crop_outside_the_image_is_empty(sample):
    after = crop(sample([[0, 0, 40, 30]]), (100, 100, 110, 120), min_visible=0)
    assert after["image"].shape == (20, 10, 3) and not after["image"].any() and len(after["boxes"]) == 0


@pytest.mark.parametrize(
    ("size", "canvas", "expected"),
    [
        ((480, 640), (800, 1344), (800, 1067)),  # 800 / 480 = 1.667 < 2.1: the height just fits
        ((100, 1000), (800, 1344), (134, 1344)),  # 1.344 < 8: the width just fits
        ((1600, 2688), (800, 1344), (800, 1344)),
        ((1, 5000), (64, 64), (1, 64)),  # a line keeps one pixel
        ((64, 64), (64, 64), (64, 64)),
    ],
)
def test_fitted_size_by_hand(size, canvas, expected):
    assert tuple(fitted_size(size, canvas)) == expected


@given(*[st.integers(1, 3000)] * 2, *[st.integers(1, 1500)] * 2)
def test_fitted_size_fills_one_side_and_exceeds_neither(height, width, canvas_height, canvas_width):
    fitted = fitted_size((height, width), (canvas_height, canvas_width))
    assert 1 <= fitted[0] <= canvas_height and 1 <= fitted[1] <= canvas_width
    assert fitted[0] == canvas_height or fitted[1] == canvas_width


@given(st.data(), st.floats(0.5, 3), st.integers(-20, 20), st.integers(-20, 20))
@settings(max_examples=60, deadline=None)
def test_a_scaled_box_lies_within_half_a_pixel_of_its_mask(draw, factor, down, right):
    x, y = draw.draw(st.integers(0, 40)), draw.draw(st.integers(0, 24))
    before = rectangle(x, y, draw.draw(st.integers(x + 6, 48)), draw.draw(st.integers(y + 6, 32)))
    scaled, frame = np.rint(np.array([32, 48]) * factor).astype(int), np.array([32, 48])
    after = geometry.reframe(before, scaled, np.array([down, right]), frame, 0.25, np.asarray)
    data.validate(after, 1)
    assert np.abs(after["boxes"] - data.mask_boxes(after["masks"])).max(initial=0) <= 0.51


def test_a_shrunk_mask_does_not_grow_towards_the_border_of_the_image():
    """47 · 26 / 48 = 25.46, so that pixel 25 is outside by more than half."""
    after = geometry.reframe(
        rectangle(30, 10, 47, 20), np.array([17, 26]), np.array([0, 0]), np.array([17, 26]), 0.25, np.asarray
    )
    assert after["boxes"][0, 2] == pytest.approx(25.458, abs=1e-3)
    assert data.mask_boxes(after["masks"])[0].tolist() == [16, 5, 25, 11]


def test_a_mask_thinner_than_a_pixel_survives_shrinking(sample):
    before = sample([[20, 10, 21, 30]])
    after = geometry.reframe(before, np.array([8, 12]), np.array([0, 0]), np.array([8, 12]), 0.25, np.asarray)
    assert after["masks"].any() and after["boxes"].tolist() == [[5, 2.5, 5.25, 7.5]]


def test_enlarging_keeps_shape(sample):
    before = sample([[4, 4, 10, 10]])
    after = geometry.reframe(before, np.array([64, 96]), np.array([0, 0]), np.array([64, 96]), 0.25, np.asarray)
    assert after["boxes"].tolist() == [[8, 8, 20, 20]]
    assert after["masks"][0, 8:20, 8:20].mean() > 0.95 and after["masks"].sum() <= 144
