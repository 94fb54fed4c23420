"""Image checks, resizing and padding masks."""

import keras
import numpy as np
import pytest

from keras_maskrcnn.ops import images


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3), "float32"), "float32"),
        (np.zeros((4, 4), "uint8"), r"\[4, 4\]"),
        (np.zeros((4, 4, 4), "uint8"), r"\[4, 4, 4\]"),
        (np.zeros((0, 4, 3), "uint8"), r"\[0, 4, 3\]"),
        (np.zeros((1, 4, 4, 3), "uint8"), r"\[1, 4, 4, 3\]"),
    ],
)
def test_invalid_images_are_rejected(image, reason):
    with pytest.raises(ValueError, match=reason):
        images.check(image)


def test_valid_images_are_accepted():
    image = np.zeros((4, 5, 3), "uint8")
    assert images.check(image) is image
    assert images.check([[[np.uint8(1)] * 3]]).shape == (1, 1, 3)


def test_fit_keeps_an_image_of_the_requested_size():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype("uint8")
    fitted = keras.ops.convert_to_numpy(images.fit(image, (8, 6)))
    assert fitted.dtype == "float32"
    np.testing.assert_array_equal(fitted, image)


def test_downsampling_averages():
    image = np.zeros((64, 64, 3), "uint8")
    image[:, ::8] = 240  # one column in eight: bilinear sampling without antialiasing would give 240 or 0
    fitted = keras.ops.convert_to_numpy(images.fit(image, (8, 8)))
    assert fitted.shape == (8, 8, 3)
    np.testing.assert_allclose(fitted[:, 1:-1], 30, atol=1)


def test_upsampling_by_two_aligns_pixel_centres():
    image = np.array([[[0] * 3, [100] * 3]] * 2, "uint8")
    fitted = keras.ops.convert_to_numpy(images.fit(image, (4, 4)))
    # The centres of the four columns are at -¼, ¼, ¾, 1¼ of the two.
    np.testing.assert_allclose(fitted[..., 0], [[0, 25, 75, 100]] * 4, atol=1e-4)


def test_inside_marks_the_image():
    found = keras.ops.convert_to_numpy(images.inside(3, 4, np.array([[2, 3], [3, 4], [1, 1]], "float32")))
    expected = np.zeros((3, 3, 4), bool)
    expected[0, :2, :3] = expected[1] = expected[2, :1, :1] = True
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == bool
