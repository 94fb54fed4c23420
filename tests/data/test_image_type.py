"""Channels and dtypes of images: conversions, data sets, augmentation and batches."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data import mini_masks
from keras_maskrcnn.data.image_type import RGB

RNG = np.random.default_rng(0)
TYPES = [data.ImageType(channels, dtype) for channels in (1, 2, 3, 4, 8) for dtype in ("uint8", "uint16")]
each_type = pytest.mark.parametrize("image_type", TYPES, ids=str)


def noise(*shape, dtype="uint16"):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def image_of(image_type, size=(6, 9)):
    return noise(*size, image_type.channels, dtype=image_type.dtype)


# The type ---------------------------------------------------------------------------------------------------------


def test_types_are_checked():
    assert str(data.ImageType(4, "uint16")) == "uint16 [H, W, 4]" and data.ImageType() == RGB
    for channels in (0, 9, "3", None):
        with pytest.raises(ValueError, match="must be a whole number from 1 to 8"):
            data.ImageType(channels)
    with pytest.raises(ValueError, match="uint8 or uint16, not 'float32'"):
        data.ImageType(3, "float32")


@given(st.integers(0, 255))
def test_eight_bits_survive_sixteen(level):
    image = np.full((1, 1, 1), level, np.uint8)
    wide = data.ImageType(1, "uint16").convert(image)
    assert wide.item() == 257 * level and data.ImageType(1).convert(wide).item() == level


@given(st.integers(0, 65535))
def test_sixteen_bits_are_rounded_to_eight(level):
    found = data.ImageType(1).convert(np.full((1, 1), level, np.uint16)).item()
    assert abs(found - level / 257) <= 0.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_and_colour(dtype):
    grey = noise(5, 7, 1, dtype=dtype)
    stacked = data.ImageType(3, dtype).convert(grey[..., 0])
    assert (stacked == grey).all() and stacked.shape == (5, 7, 3)
    np.testing.assert_array_equal(data.ImageType(1, dtype).convert(stacked), grey)
    top = np.iinfo(dtype).max
    primary = data.ImageType(1, dtype).convert(np.eye(3, dtype=dtype)[None] * np.array(top, dtype))[0, :, 0]
    np.testing.assert_allclose(primary / top, [0.299, 0.587, 0.114], atol=0.002)  # ITU-R BT.601


def test_grey_is_pillows():
    colours = noise(40, 50, 3, dtype="uint8")
    np.testing.assert_array_equal(data.ImageType(1).convert(colours)[..., 0], Image.fromarray(colours).convert("L"))


@pytest.mark.parametrize(("given_", "wanted"), [(2, 3), (4, 3), (3, 4), (1, 2), (5, 1)])
def test_other_numbers_of_channels_are_refused(given_, wanted):
    with pytest.raises(ValueError, match=f"^the image has {given_} channels, not {wanted}$"):
        data.ImageType(wanted).convert(noise(2, 2, given_))


# Data sets --------------------------------------------------------------------------------------------------------


def test_a_reader_decodes_to_other_types(coco_folder):
    path, folder = coco_folder([{"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}])
    coco = data.Coco(path, folder)
    (folder / "one.png").unlink()
    pixels = noise(8, 10, 5)
    tifffile.imwrite(folder / "one.tif", pixels, photometric="minisblack", planarconfig="contig")
    (folder / "one.tif").rename(folder / "one.png")  # the content counts, not the name
    many = coco.decoded(channels=5, dtype="uint16")
    assert (coco.image_type, many.image_type) == (RGB, data.ImageType(5, "uint16"))
    np.testing.assert_array_equal(many[0]["image"], pixels)
    for wrapped in (many[:1], data.Cached(many), coco[:1].decoded(5, "uint16")):
        assert wrapped.image_type == many.image_type
        np.testing.assert_array_equal(wrapped[0]["image"], pixels)
    with pytest.raises(data.DataError, match="has 5 channels, not 3"):
        coco[0]


def test_arrays_have_the_type_of_the_first(in_memory):
    arrays = data.Arrays([noise(6, 7), noise(4, 5, 1)], [np.ones((6, 7), int), np.ones((4, 5), int)])
    assert arrays.image_type == data.ImageType(1, "uint16") and arrays[0]["image"].shape == (6, 7, 1)
    assert arrays.decoded()[1]["image"].shape == (4, 5, 3)
    mixed = data.Arrays([noise(6, 7, 4), noise(6, 7, 3)], [np.ones((6, 7), int)] * 2)
    with pytest.raises(data.DataError, match=r"^Arrays\[1\]: the image has 3 channels, not 4$"):
        mixed[1]


def test_a_sample_of_another_type_is_refused(in_memory, sample):
    dataset = in_memory([sample([[1, 1, 9, 9]])]).decoded(1)
    with pytest.raises(data.DataError, match=r"the image has shape \[32, 48, 3\], not \[height, width, 1\]"):
        dataset[0]
    with pytest.raises(data.DataError, match="the image is uint8, not uint16"):
        in_memory([sample([[1, 1, 9, 9]])]).decoded(3, "uint16")[0]


# Augmentation and batches ---------------------------------------------------------------------------------------------


def of_type(image_type, size=(20, 30), seed=0):
    masks = np.zeros((1, *size), bool)
    masks[0, 4:14, 6:20] = True
    image = np.random.default_rng(seed).integers(
        0, 255 * image_type.scale + 1, (*size, image_type.channels), image_type.dtype
    )
    return data.validate({"image": image, "labels": [1], "masks": masks}, 1, image_type=image_type)


@each_type
@pytest.mark.parametrize("antialias", [False, True])
def test_resampling_is_the_same_for_every_channel_and_depth(image_type, antialias):
    image = image_of(image_type, (23, 31))
    found = mini_masks.resample(image, (2.5, 1, 27, 20.25), (9, 40), antialias)
    assert found.shape == (9, 40, image_type.channels) and found.dtype == image_type.dtype
    for channel in range(image_type.channels):
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        expected = mini_masks._resized(np.asarray(plane), (2.5, 1, 27, 20.25), (40, 9), antialias)
        assert np.abs(found[..., channel] - expected).max() <= 1


@each_type
def test_geometry_moves_all_channels_alike(image_type):
    everything = data.Augment(flip=0.5, vertical_flip=0.5, transpose=0.5, scale=(0.7, 1.4), crop=(24, 24))
    sample = of_type(image_type)
    same = {**sample, "image": np.repeat(sample["image"][..., :1], image_type.channels, axis=2)}
    for seed in range(8):
        moved = everything(same, np.random.default_rng(seed))["image"]
        assert moved.shape == (24, 24, image_type.channels) and moved.dtype == image_type.dtype
        assert (moved == moved[..., :1]).all() and moved.any()


@each_type
def test_tone_changes_have_the_same_effect_for_every_depth(image_type):
    tone = data.Augment(brightness=0.3, contrast=0.3, gamma=0.3, invert=0.5)
    narrow, sample = data.ImageType(image_type.channels), of_type(data.ImageType(image_type.channels))
    wide = {**sample, "image": image_type.convert(sample["image"])}
    for seed in range(6):
        found, expected = (tone(each, np.random.default_rng(seed))["image"] for each in (wide, sample))
        assert found.dtype == image_type.dtype
        assert np.abs(narrow.convert(found).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("change", [{"saturation": 0.2}, {"grey": 0.5}, {"stain": 0.1}])
def test_changes_of_colour_need_colour(change):
    augment = data.Augment(**change)
    for image_type in TYPES:
        allowed = image_type == RGB or (image_type.channels == 3 and "stain" not in change)
        sample = of_type(image_type)
        if allowed:
            assert augment(sample, np.random.default_rng(0))["image"].dtype == image_type.dtype
            continue
        with pytest.raises(ValueError, match=r"^(saturation and grey|stain) of an Augment"):
            augment(sample, np.random.default_rng(0))


def test_batches_refuse_them_before_the_first_sample(in_memory):
    arrays = data.Arrays([noise(6, 7, 4)], [np.ones((6, 7), int)])
    with pytest.raises(ValueError, match=r"are for R, G, B; the images are uint16 \[H, W, 4\]"):
        data.batches(arrays, (64, 64), 1, augment=data.Augment(saturation=0.1))


@each_type
@pytest.mark.parametrize("augment", [None, "flip", "standard", "strong"])
def test_batches_of_every_type(image_type, augment):
    arrays = data.Arrays([image_of(image_type, (20, 30)) for _ in range(2)], [np.ones((20, 30), int)] * 2)
    batches = data.batches(arrays, (32, 32), 2, augment=augment, max_instances=3, backend="numpy", mask_size=14)
    images = batches[0][0]["images"]
    assert images.shape == (2, 32, 32, image_type.channels) and images.dtype == image_type.dtype
    assert images.max() > 128 * image_type.scale


def test_both_pipelines_give_the_same_images():
    images = [image_of(data.ImageType(4, "uint16"), (20, 30)) for _ in range(2)]
    arrays = data.Arrays(images, [np.ones((20, 30), int)] * 2)
    found = [
        np.asarray(next(iter(data.batches(arrays, (32, 32), 2, augment="strong", backend=backend)))[0]["images"])
        for backend in ("tf", "numpy")
    ]
    assert found[0].dtype == np.uint16
    np.testing.assert_array_equal(*found)


# Stretch ----------------------------------------------------------------------------------------------------------


@each_type
def test_stretch_reaches_both_ends(image_type):
    image = (image_of(image_type, (40, 50)) // 8 + 3 * image_type.scale).astype(image_type.dtype)
    found = data.stretch(image, (1, 99.8))
    assert found.dtype == image.dtype and (found.min(), found.max()) == (0, 255 * image_type.scale)


def test_stretch_of_sixteen_bits_is_that_of_numpys_percentiles():
    image = RNG.integers(500, 4000, (31, 17, 3)).astype(np.uint16)
    low, high = np.percentile(image, (1, 99), method="inverted_cdf").astype(int)
    expected = np.clip(np.rint((image.astype(int) - low) * 65535 / (high - low)), 0, 65535)
    np.testing.assert_array_equal(data.stretch(image, (1, 99)), expected)


def test_channels_that_are_no_colours_have_their_own_percentiles():
    image = np.stack([noise(30, 30, dtype="uint8") // 8, noise(30, 30, dtype="uint8") // 2], axis=-1)
    found = data.stretch(image, (0, 100))
    assert (found.max(axis=(0, 1)) == 255).all() and (found.min(axis=(0, 1)) == 0).all()
