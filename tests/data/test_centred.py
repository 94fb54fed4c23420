import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import data

SHAPES = data.Shapes(20, image_size=(60, 80), seed=3, scale_objects=True)
SMALL = data.Centred(size=(120, 180), canvas=(128, 192))


def moved(centred, sample, seed=0):
    return centred(sample, np.random.default_rng(seed))


def test_the_assignment_worked_by_hand(sample):
    # 300 x 400 pixels are resized to 800 x 1066: factors 8/3 and 2.665; (1088 - 1066) / 2 = 11 columns on each side.
    before = sample([[0, 0, 400, 300], [100, 30, 200, 60]], size=(300, 400))
    after = moved(data.Centred(), before)
    assert after["image"].shape == (800, 1088, 3) and after["masks"].shape == (2, 800, 1088)
    assert after["masks"].dtype == bool
    np.testing.assert_allclose(after["boxes"], [[11, 0, 1077, 800], [277.5, 80, 544, 160]], atol=1e-3)
    np.testing.assert_array_equal(data.mask_boxes(after["masks"][:1]), [[11, 0, 1077, 800]])
    for border in (np.s_[:, :11], np.s_[:, 1077:]):
        assert (after["image"][border] == [124, 116, 104]).all()
    assert after["image"][:, 11:1077].std() > 10


def test_the_border_is_zero_once_normalised():
    mean, deviation = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
    off = np.abs(np.array(data.Centred().fill) - mean)
    assert off.max() < 0.5 and (off / deviation).max() < 0.01


def test_an_odd_border_is_wider_below_and_on_the_right():
    after = moved(data.Centred((60, 80), (63, 85), fill=(1, 2, 3)), SHAPES[0])
    np.testing.assert_array_equal(after["image"][1:61, 2:82], SHAPES[0]["image"])
    outside = np.ones((63, 85), bool)
    outside[1:61, 2:82] = False
    assert (after["image"][outside] == [1, 2, 3]).all()
    np.testing.assert_array_equal(after["masks"][:, 1:61, 2:82], SHAPES[0]["masks"])
    np.testing.assert_array_equal(after["boxes"], SHAPES[0]["boxes"] + np.float32([2, 1, 2, 1]))


def test_both_axes_are_scaled_separately(sample):
    after = moved(data.Centred((40, 40), (40, 40)), sample([[10, 10, 20, 20]], size=(20, 80)))
    np.testing.assert_allclose(after["boxes"], [[5, 20, 10, 40]])
    np.testing.assert_array_equal(data.mask_boxes(after["masks"]), [[5, 20, 10, 40]])


@given(st.integers(0, 19), st.sampled_from([(120, 160), (90, 200), (60, 80), (70, 90)]), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_masks_stay_in_their_boxes_and_boxes_are_scaled_and_shifted(index, size, flip):
    centred = data.Centred(size, (128, 200), flip=flip)
    before = SHAPES[index]
    after = moved(centred, before)
    data.validate(after, 3)
    assert np.abs(data.mask_boxes(after["masks"]) - after["boxes"]).max(initial=0) <= 1
    assert after["labels"].tolist() == before["labels"].tolist()
    boxes = before["boxes"]
    if flip:
        boxes = (np.float32([80, 0, 80, 0]) + boxes * [-1, 1, -1, 1])[:, [2, 1, 0, 3]]
    scale, offset = np.tile(np.divide(size, (60, 80))[::-1], 2), np.tile(centred.offset[::-1], 2)
    np.testing.assert_allclose(after["boxes"], boxes * scale + offset, atol=1e-3)


def test_share_that_is_mirrored():
    always, never, half = (dataclasses.replace(SMALL, flip=share) for share in (1.0, 0.0, 0.5))
    plain = moved(never, SHAPES[1])
    np.testing.assert_array_equal(moved(always, SHAPES[1])["image"], plain["image"][:, ::-1])
    same = [np.array_equal(moved(half, SHAPES[1], seed)["image"], plain["image"]) for seed in range(40)]
    assert 10 <= sum(same) <= 30


def test_the_input_is_unchanged():
    before = SHAPES[4]
    copies = {key: np.copy(before[key]) for key in ("image", "boxes", "masks", "labels")}
    moved(dataclasses.replace(SMALL, flip=1), before)
    for key, copy in copies.items():
        np.testing.assert_array_equal(before[key], copy)


def test_a_size_that_does_not_fit():
    with pytest.raises(ValueError, match=r"size \(10, 30\) does not fit in the canvas \(20, 20\)"):
        data.Centred((10, 30), (20, 20))


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize("mask_size", [28, "canvas"])
def test_batches_hold_whole_canvases(backend, mask_size):
    options = {"augment": SMALL, "shuffle": False, "max_instances": 6, "mask_size": mask_size, "backend": backend}
    x, y = next(iter(data.batches(data.Subset(SHAPES, range(4)), SMALL.canvas, 4, **options)))
    x, y = ({key: np.asarray(value) for key, value in part.items()} for part in (x, y))
    assert x["images"].shape == (4, 128, 192, 3) and (x["sizes"] == [128, 192]).all()
    for row in range(4):
        expected = moved(SMALL, SHAPES[row])
        count = len(expected["labels"])
        assert y["valid"][row].sum() == count > 0
        np.testing.assert_allclose(y["boxes"][row, :count], expected["boxes"], atol=1e-3)
        masks = y["masks"][row, :count]
        if mask_size != "canvas":
            masks = data.paste_masks(masks, y["boxes"][row, :count], SMALL.canvas)
        own = data.mask_boxes(masks > 0)
        assert np.abs(own - y["boxes"][row, :count]).max() <= 1
