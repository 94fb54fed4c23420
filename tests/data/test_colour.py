import time

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data import colour

RNG = np.random.default_rng(0)
TISSUE = np.clip(RNG.normal([180, 110, 170], [30, 40, 25], (64, 48, 3)), 0, 255).astype(np.uint8)
SHAPES = data.Shapes(6, image_size=(40, 56), seed=9)
NOTHING = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int32), "crowd": np.zeros(0, bool)}


def ramp(levels):
    """An image of one row with these grey levels."""
    return np.repeat(np.array(levels, np.uint8)[None, :, None], 3, axis=2)


def test_stretch_worked_by_hand():
    """Of 100 levels, the second smallest and the second largest have the ranks 2 and 99."""
    levels = np.arange(100, 200)
    found = data.stretch(ramp(levels), (2, 99))[0, :, 0]
    expected = np.clip(np.rint((levels - 101) * 255 / 97), 0, 255)
    np.testing.assert_array_equal(found, expected)
    assert found[:2].tolist() == [0, 0] and found[-2:].tolist() == [255, 255]


@pytest.mark.parametrize("percentiles", [(1, 99.8), (0, 100), (5, 50)])
def test_stretch_is_that_of_numpys_percentiles(percentiles):
    image = RNG.integers(20, 90, (31, 17, 3)).astype(np.uint8)
    low, high = np.percentile(image, percentiles, method="inverted_cdf").astype(int)
    expected = np.clip(np.rint((image.astype(int) - low) * 255 / (high - low)), 0, 255)
    np.testing.assert_array_equal(data.stretch(image, percentiles), expected)


def test_stretch_of_a_uniform_image_does_not_amplify_its_noise():
    image = RNG.integers(7, 10, (20, 20, 3)).astype(np.uint8)
    found = data.stretch(image, (1, 99.8))
    assert found.max() == 2 * 255 // colour.MIN_RANGE["uint8"] + 1 and found.min() == 0
    assert not data.stretch(np.full((4, 4, 3), 255, np.uint8), (1, 99)).any()


def test_stretch_keeps_grey_grey_and_twice_is_once():
    dark = (TISSUE // 4).astype(np.uint8)
    once = data.stretch(dark, (1, 99.8))
    assert once.max() == 255 and once.min() == 0
    assert np.abs(data.stretch(once, (1, 99.8)).astype(int) - once).max() <= 1
    grey = data.stretch(np.repeat(dark[..., :1], 3, axis=2), (1, 99.8))
    assert (grey == grey[..., :1]).all()


def test_stretched_data_set_changes_the_images_only():
    dark = [{**sample, "image": sample["image"] // 5} for sample in SHAPES]

    class Dark(data.Dataset):
        class_names = SHAPES.class_names

        def __len__(self):
            return len(dark)

        def read(self, position):
            return dark[position]

    found = data.Stretched(Dark(), (2, 98))
    assert len(found) == 6 and found.class_names == SHAPES.class_names
    for number, sample in enumerate(found):
        np.testing.assert_array_equal(sample["image"], data.stretch(dark[number]["image"], (2, 98)))
        np.testing.assert_array_equal(sample["masks"], dark[number]["masks"])
        np.testing.assert_array_equal(found.labels_at(number), dark[number]["labels"])


def test_stains_are_unit_vectors_and_separable():
    np.testing.assert_allclose(np.linalg.norm(colour.STAINS, axis=1), 1)
    assert np.linalg.cond(colour.STAINS) < 10


def test_restain_without_a_change_is_the_identity():
    found = colour.restain(np.array([[1, 1, 1], [0, 0, 0]]), TISSUE)
    assert np.abs(found.astype(int) - TISSUE).max() <= 1


def test_restain_scales_the_stain_that_an_image_has():
    """An image of haematoxylin of density 0.5 with half of it removed has density 0.25."""

    def tissue(amount):
        level = 256 * 10 ** (-amount * colour.STAINS[0]) - 1
        return np.broadcast_to(np.rint(level).astype(np.uint8), (8, 8, 3))

    for amounts in ([[0.5, 1, 1], [0, 0, 0]], [[1, 1, 1], [-0.25, 0, 0]]):
        found = colour.restain(np.array(amounts), tissue(0.5))
        np.testing.assert_allclose(found, tissue(0.25), atol=2)
    np.testing.assert_allclose(colour.restain(np.array([[1, 3, 3], [0, 0, 0]]), tissue(0.5)), tissue(0.5), atol=3)


def test_restain_leaves_grey_images():
    grey = np.repeat(TISSUE[..., :1], 3, axis=2)
    assert colour.restain(np.array([[1.2, 0.8, 1], [0.1, 0, 0]]), grey) is grey


def test_retone_worked_by_hand():
    image = ramp([0, 64, 128, 255])
    assert colour.retone(2.0, False, image)[0, :, 0].tolist() == [0, 16, 64, 255]  # 255 · (64 / 255)² = 16.06
    assert colour.retone(1.0, True, image)[0, :, 0].tolist() == [255, 191, 127, 0]
    assert colour.retone(1.0, False, image) is image


@pytest.mark.parametrize("options", [{"gamma": 0.5}, {"invert": 1.0}, {"stain": 0.2}])
def test_augment_changes_colours_only(options):
    before = {**SHAPES[1], "image": TISSUE[:40].repeat(2, axis=1)[:, :56]}
    after = data.Augment(**options)(before, np.random.default_rng(0))
    assert not np.array_equal(after["image"], before["image"])
    for key in ("boxes", "masks", "labels"):
        np.testing.assert_array_equal(after[key], before[key])


def test_the_number_of_draws_does_not_depend_on_the_sample():
    augment = data.Augment(stain=0.1, gamma=0.3, invert=0.5, brightness=0.2, scale=(0.5, 2), crop=(32, 32))
    after = []
    for image in (TISSUE, TISSUE[:20, :, :1].repeat(3, axis=2)):
        rng = np.random.default_rng(3)
        augment({**SHAPES[0], "image": image, "masks": np.zeros((0, *image.shape[:2]), bool), **NOTHING}, rng)
        after.append(rng.random())
    assert after[0] == after[1]


def test_amounts_lie_in_their_ranges():
    def levels(level, count, **options):
        sample, augment = {**SHAPES[0], "image": ramp([level])}, data.Augment(**options)
        return np.array([augment(sample, np.random.default_rng(i))["image"][0, 0, 0] for i in range(count)], int)

    found = levels(128, 200, gamma=1.0)
    low, high = 255 * (128 / 255) ** 2, 255 * (128 / 255) ** 0.5
    assert low - 1 <= found.min() < low + 5 and high - 5 < found.max() <= high + 1
    found = levels(9, 400, invert=0.25)
    assert set(found) == {9, 246} and 0.18 < np.mean(found == 246) < 0.32


def test_colours_of_a_crop_take_a_few_milliseconds():
    augment = data.Augment(stain=0.1, gamma=0.3, invert=0.5, brightness=0.2, contrast=0.2, saturation=0.2)
    sample = {**SHAPES[0], "image": RNG.integers(0, 256, (256, 256, 3)).astype(np.uint8)}
    seconds = []
    for seed in range(15):
        start = time.perf_counter()
        augment(sample, np.random.default_rng(seed))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.03
