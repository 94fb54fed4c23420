"""Test-time augmentation: fusion worked by hand, and views of a model against the model itself."""

import numpy as np
import pytest

from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.outputs import Detections, Output
from keras_maskrcnn.inference import TestTimeAugmentation
from keras_maskrcnn.inference.augmented import _mirrored, fused
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.ops.masks import resample

SCHEMA = (*OUTPUTS, Output("masks", "box_masks"))


def view(*objects):
    """Detections from (box, label, score, value of the mask)."""
    boxes, labels, scores, values = zip(*objects, strict=True) if objects else ((), (), (), ())
    return {
        "boxes": np.array(boxes, "float32").reshape(-1, 4),
        "labels": np.array(labels, "int32"),
        "scores": np.array(scores, "float32"),
        "masks": np.tile(np.array(values, "float32").reshape(-1, 1, 1), (1, 4, 4)),
    }


def test_an_object_in_two_views_is_one_by_hand():
    found = fused([view(([0, 0, 10, 10], 1, 0.6, 1.0)), view(([0, 0, 10, 12], 1, 0.3, 0.1))], SCHEMA)
    np.testing.assert_allclose(found["boxes"], [[0, 0, 10, (0.6 * 10 + 0.3 * 12) / 0.9]], rtol=1e-6)
    np.testing.assert_allclose(found["scores"], [0.45], rtol=1e-6)
    # In the middle of both boxes: (0.6 · 1 + 0.3 · 0.1) / 0.9.
    np.testing.assert_allclose(found["masks"][0, 1:3, 1:3], 0.7, rtol=1e-5)


def test_an_object_in_one_of_two_views_has_half_its_score():
    found = fused([view(([0, 0, 10, 10], 1, 0.6, 1.0)), view()], SCHEMA)
    np.testing.assert_allclose(found["scores"], [0.3], rtol=1e-6)


def test_classes_and_detections_of_one_view_stay_apart():
    one = view(([0, 0, 10, 10], 1, 0.9, 1.0), ([0, 0, 10, 9], 1, 0.8, 1.0), ([0, 0, 10, 10], 2, 0.7, 1.0))
    found = fused([one, one], SCHEMA)
    assert found["labels"].tolist() == [1, 1, 2]
    np.testing.assert_allclose(found["scores"], [0.9, 0.8, 0.7], rtol=1e-6)
    np.testing.assert_allclose(found["boxes"], one["boxes"], rtol=1e-6)


def test_no_detection_at_all():
    found = fused([view(), view()], SCHEMA)
    assert found["boxes"].shape == (0, 4) and found["masks"].shape == (0, 4, 4)


def test_a_mask_on_its_own_grid_stays_and_is_zero_outside_its_box():
    masks = np.random.default_rng(0).random((2, 6, 6)).astype("float32")
    boxes = np.float32([[3, 4, 15, 10], [30, 30, 40, 40]])
    again = resample(masks, boxes, boxes[0])
    np.testing.assert_allclose(again[0], masks[0], atol=1e-5)
    assert not again[1].any()


def test_a_mask_of_ones_in_half_of_a_box_by_hand():
    [on_grid] = resample(np.ones((1, 2, 2), "float32"), np.float32([[0, 0, 2, 4]]), np.float32([0, 0, 4, 4]))
    # Columns at x = 1 (the middle of the mask) and x = 3, a whole cell beyond its edge; rows at the cells' centres.
    np.testing.assert_allclose(on_grid, [[1, 0], [1, 0]])


def test_scaled_placement_by_hand():
    free = Placement(None, Resize(shorter=100, longer=200), 32)
    assert free.place((50, 60)) == ((128, 128), (100, 120))
    assert free.scaled(0.5).place((50, 60)) == ((64, 64), (50, 60))
    fixed = Placement((64, 96), Resize(), 32)
    assert fixed.scaled(1.25).place((64, 96)) == ((96, 128), (85, 128))
    by_scale = Placement(None, Resize(scale=2.0), 32)
    assert by_scale.scaled(1.5).place((20, 30))[1] == (60, 90)


@pytest.fixture(scope="module")
def model(make):
    return make(image_size=(64, 64))


def mirrored(found, width):
    boxes = found["boxes"].copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return {"boxes": boxes, "masks": found["masks"][:, :, ::-1], "scores": found["scores"], "labels": found["labels"]}


def test_detections_in_the_mirror_image_are_the_mirror_images(model):
    image = np.random.default_rng(0).integers(0, 255, (50, 64, 3)).astype("uint8")
    augmented = TestTimeAugmentation(model, flip=True)
    one, other = augmented.detect(image, 0.05), mirrored(augmented.detect(image[:, ::-1], 0.05), 64)
    assert len(one["scores"]) > 3
    assert len(one["scores"]) == len(other["scores"])
    for name in ("scores", "boxes"):
        np.testing.assert_allclose(one[name], other[name], atol=1e-3)
    assert (one["masks"] == other["masks"]).mean() > 0.999


def test_scales_tiles_and_cropped_masks(model, images):
    augmented = TestTimeAugmentation(model, flip=False, scales=(1, 1.5))
    assert augmented.scales == (1.0, 1.5) and augmented.schema == model.schema
    for full, cropped in zip(
        augmented.detect(images[:2], 0.02), augmented.detect(images[:2], 0.02, masks="cropped"), strict=True
    ):
        np.testing.assert_array_equal(full["masks"], np.asarray(cropped["masks"]))
    found = augmented.detect(images[1], 0.02, tiles=(50, 64), overlap=16)
    assert found["masks"].shape[1:] == (50, 200) and len(found["scores"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"flip": False}, "needs flip=True or a scale other than 1"),
        ({"flip": False, "scales": (1,)}, "needs flip=True"),
        ({"scales": (0.5, -1)}, r"scales=\(0.5, -1.0\) must be positive"),
        ({"scales": (float("nan"),)}, "must be positive"),
    ],
)
def test_views_that_make_no_sense_are_refused(model, options, reason):
    with pytest.raises(ValueError, match=reason):
        TestTimeAugmentation(model, **options)


def test_left_and_right_points_change_places_by_hand():
    names = ("nose", "left_eye", "right_eye")
    found = {
        "boxes": np.float32([[10, 0, 30, 9]]),
        "keypoints": np.float32([[[20, 1, 1], [12, 2, 1], [28, 3, 1]]]),
        "keypoint_scores": np.float32([[5, 6, 7]]),
    }
    schema = (
        Output("boxes", "boxes"), Output("keypoints", "points", names=names), Output("keypoint_scores", names=names)
    )  # fmt: skip
    turned = _mirrored(Detections(found, schema), 100)
    np.testing.assert_array_equal(turned["boxes"], [[70, 0, 90, 9]])
    np.testing.assert_array_equal(turned["keypoints"], [[[80, 1, 1], [72, 3, 1], [88, 2, 1]]])
    np.testing.assert_array_equal(turned["keypoint_scores"], [[5, 7, 6]])


def test_keypoints_of_the_mirror_image_are_the_mirror_images(make):
    names = ("left_hand", "right_hand", "head")
    head = KeypointHead(3, stage={"width": 8, "depth": 1}, names=names)
    augmented = TestTimeAugmentation(make(image_size=(64, 64), heads=[head]))
    image = np.random.default_rng(0).integers(0, 255, (50, 64, 3)).astype("uint8")
    one, other = augmented.detect(image, 0.05), augmented.detect(image[:, ::-1], 0.05)
    assert len(one["scores"]) == len(other["scores"]) > 3
    found, swapped = one["keypoints"], other["keypoints"][:, [1, 0, 2]]
    np.testing.assert_allclose(found[..., 0], 64 - swapped[..., 0], atol=1e-2)
    np.testing.assert_allclose(found[..., 1], swapped[..., 1], atol=1e-2)
    np.testing.assert_allclose(one["keypoint_scores"], other["keypoint_scores"][:, [1, 0, 2]], atol=1e-3)


def test_points_without_names_are_not_mirrored():
    class Points:
        schema = (*OUTPUTS, Output("keypoints", "points"))

    with pytest.raises(ValueError, match="needs names of the points"):
        TestTimeAugmentation(Points())
