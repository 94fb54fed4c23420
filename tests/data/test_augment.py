import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import data
from keras_maskrcnn.data import augment

SHAPES = data.Shapes(20, image_size=(40, 56), seed=9)
ALL = data.Augment(
    flip=0.5, vertical_flip=0.5, transpose=0.5, scale=(0.5, 2), brightness=0.3, contrast=0.3, saturation=0.3, grey=0.2
)


def test_nothing_changes_without_options():
    before = SHAPES[0]
    after = data.Augment()(before, np.random.default_rng(0))
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])


def test_flip_always():
    before = SHAPES[0]
    after = data.Augment(flip=1)(before, np.random.default_rng(0))
    np.testing.assert_array_equal(after["image"], before["image"][:, ::-1])
    np.testing.assert_array_equal(after["masks"], before["masks"][:, :, ::-1])


@given(st.integers(0, 19), st.integers(0, 10_000), st.sampled_from([None, (30, 30), (64, 20)]))
@settings(max_examples=80, deadline=None)
def test_any_draw_gives_a_valid_sample(index, seed, crop):
    after = dataclasses.replace(ALL, crop=crop)(SHAPES[index], np.random.default_rng(seed))
    data.validate(after, 3)
    assert after["image"].shape[:2] in [crop or (40, 56), crop or (56, 40)]
    beyond = (data.mask_boxes(after["masks"]) - after["boxes"]) * [-1, -1, 1, 1]
    assert beyond.max(initial=0) <= 1  # a pixel of the mask that the box only touches


def test_equal_generators_give_equal_samples_and_others_do_not():
    one, two, other = (ALL(SHAPES[3], np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one["image"], two["image"])
    assert one["image"].shape != other["image"].shape or not np.array_equal(one["image"], other["image"])


def test_the_input_is_unchanged():
    before = SHAPES[4]
    copies = {key: np.copy(before[key]) for key in ("image", "boxes", "masks", "labels")}
    for seed in range(10):
        ALL(before, np.random.default_rng(seed))
    for key, copy in copies.items():
        np.testing.assert_array_equal(before[key], copy)


def test_crop_of_a_small_image_is_padded_and_padding_stays_black():
    move = data.Augment(crop=(100, 120), brightness=0.5, contrast=0.9)
    white = {**SHAPES[0], "image": np.full((40, 56, 3), 200, np.uint8)}
    for seed in range(5):
        after = move(white, np.random.default_rng(seed))
        assert after["image"].shape == (100, 120, 3)
        assert after["image"].any(-1).sum() == 40 * 56
        assert len(after["labels"]) == len(white["labels"])


def test_scale_enlarges_objects():
    before = SHAPES[1]
    after = data.Augment(scale=(2, 2), crop=(80, 112))(before, np.random.default_rng(0))
    np.testing.assert_allclose(after["boxes"], before["boxes"] * 2)
    assert after["masks"].sum() == pytest.approx(4 * before["masks"].sum(), rel=0.05)


def test_fit_is_the_size_that_the_scale_refers_to():
    move = data.Augment(scale=(0.999999, 1.000001), fit=(80, 300))
    before = SHAPES[1]
    after = move(before, np.random.default_rng(0))
    assert after["image"].shape == (80, 112, 3)
    np.testing.assert_allclose(after["boxes"], before["boxes"] * 2)


def flat(colour):
    return {**SHAPES[0], "image": np.full((40, 56, 3), colour, np.uint8)}


def test_brightness_multiplies():
    rng = np.random.default_rng(0)
    values = [data.Augment(brightness=0.5)(flat((100, 50, 10)), rng)["image"][0, 0].astype(float) for _ in range(200)]
    factors = np.array(values)[:, 0] / 100
    assert 0.5 <= factors.min() < 0.55 and 1.45 < factors.max() <= 1.5
    np.testing.assert_allclose(np.array(values)[:, 1], 50 * factors, atol=1.1)


def test_contrast_keeps_the_mean_and_saturation_keeps_grey():
    image = flat(0)["image"]
    image[:, ::8], image[:, 4::8] = 100, 60  # the columns that the mean is taken from
    after = data.Augment(contrast=0.5)({**flat(0), "image": image}, np.random.default_rng(0))["image"]
    assert after[0, 0, 0] + after[0, 4, 0] == pytest.approx(160, abs=1) and after[0, 0, 0] != 100
    grey = data.Augment(saturation=0.9)(flat((70, 70, 70)), np.random.default_rng(0))["image"]
    assert (grey == 70).all()


def test_grey():
    image = data.Augment(grey=1)(flat((200, 100, 50)), np.random.default_rng(0))["image"]
    assert image[0, 0].tolist() == [124] * 3  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2


def test_presets_by_name():
    assert augment.get("flip") == data.Augment(flip=0.5)
    assert augment.get("standard").flip == 0.5 and augment.get("strong").grey > 0
    assert augment.get("lsj").scale == (0.1, 2.0) and augment.get("copy_paste").copy_paste == 0.5
    assert augment.get(None) is None and augment.get(ALL) is ALL
    with pytest.raises(ValueError, match="flip, standard, strong, lsj, copy_paste, not 'hard'"):
        augment.get("hard")


def test_an_augmentation_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALL.flip = 0
