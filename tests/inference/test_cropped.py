"""Cropped masks of `detect` against the full ones."""

import numpy as np
import pytest

from keras_maskrcnn.data import CroppedMasks
from keras_maskrcnn.data.cropped_masks import Crop
from keras_maskrcnn.evaluation import coco_results
from keras_maskrcnn.ops.masks import paste, paste_crops


@pytest.fixture(scope="module")
def model(make):
    return make(image_size=(64, 64))


def test_cropped_masks_are_the_full_ones(model, images):
    pairs = zip(model.detect(images, 0.1), model.detect(images, 0.1, masks="cropped"), strict=True)
    for image, (full, cropped) in zip(images, pairs, strict=True):
        assert len(full["scores"]) and isinstance(cropped["masks"], CroppedMasks)
        assert cropped["masks"].shape == full["masks"].shape == (len(full["scores"]), *image.shape[:2])
        np.testing.assert_array_equal(cropped.full()["masks"], full["masks"])
        assert coco_results([cropped], ["a"]) == coco_results([full], ["a"])


def test_another_word_is_refused(model, images):
    with pytest.raises(ValueError, match="masks='runs' is not one of 'full', 'cropped'"):
        model.detect(images[0], masks="runs")


@pytest.mark.parametrize("how", ["continuous", "whole_pixels"])
def test_pasted_crops_are_pasted_masks(how):
    """Boxes inside, partly outside and completely outside the image."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(-40, 120, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.1, 60, (60, 2))], axis=1).astype("float32")
    masks, size = rng.random((60, 14, 14)).astype("float32"), (70, 90)
    whole = paste(masks, boxes, size, how=how)
    crops = [Crop(*crop) for crop in paste_crops(masks, boxes, size, how=how, keep=lambda *crop: crop)]
    assert whole.any(axis=(1, 2)).sum() > 20
    np.testing.assert_array_equal(np.asarray(CroppedMasks([crop.packed() for crop in crops], size)), whole)
