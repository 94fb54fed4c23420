"""Skeletons: which points are filled and connected, from detections and from samples."""

import numpy as np
import pytest

from keras_maskrcnn import data, visualize
from keras_maskrcnn.data.coco_keypoints import PERSON
from keras_maskrcnn.drawing.skeletons import limbs_of, skeletons_of
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.outputs import Detections

TINT = (250, 10, 200)
NAMES = ("left_hip", "left_knee", "left_ankle")


def detections(points, scores, names=NAMES):
    schema = (*OUTPUTS, *KeypointHead(len(points), names=names).OUTPUTS)
    points = np.concatenate([np.float32(points), np.ones((len(points), 1), "float32")], axis=1)
    arrays = {"boxes": np.float32([[1, 1, 59, 59]]), "labels": np.int32([1]), "scores": np.float32([0.9])}
    return Detections({**arrays, "keypoints": points[None], "keypoint_scores": np.float32([scores])}, schema)


def drawn(found, **options):
    options = {"boxes": False, "labels": False, "line_width": 2, "colour_by": [TINT], **options}
    return visualize.draw(np.full((60, 60, 3), 128, np.uint8), found, **options)


def tinted(picture, x, y):
    return tuple(picture[y, x]) == TINT


def test_limbs_of_a_person():
    limbs = {frozenset((PERSON[one], PERSON[other])) for one, other in limbs_of(PERSON)}
    assert len(limbs) == 16 and frozenset(("left_knee", "left_ankle")) in limbs
    assert frozenset(("left_hip", "right_hip")) in limbs and frozenset(("left_eye", "right_ear")) not in limbs
    assert limbs_of(("Left_Hip", "LEFT_KNEE", "tail")) == [(0, 1)] and limbs_of(None) == []


def test_sure_points_are_filled_and_connected_and_others_are_rings():
    picture = drawn(detections([(10, 10), (50, 10), (50, 50)], [5, 5, 1]))
    assert tinted(picture, 10, 10) and tinted(picture, 50, 10) and tinted(picture, 30, 10)  # the thigh
    assert not tinted(picture, 50, 50) and not tinted(picture, 50, 30)  # an unsure ankle
    assert any(tinted(picture, x, 50) for x in (45, 46, 54, 55))  # its ring
    lower = drawn(detections([(10, 10), (50, 10), (50, 50)], [5, 5, 1]), keypoint_threshold=0)
    assert tinted(lower, 50, 50) and tinted(lower, 50, 30)


def test_points_without_a_known_skeleton_are_not_connected():
    for names in (("a", "b", "c"), None):
        picture = drawn(detections([(10, 10), (50, 10), (50, 50)], [5, 5, 5], names))
        assert tinted(picture, 10, 10) and tinted(picture, 50, 50) and not tinted(picture, 30, 10)


def test_points_scale_with_the_image():
    picture = drawn(detections([(10, 10), (50, 10), (50, 50)], [5, 5, 5]), scale=2)
    assert picture.shape == (120, 120, 3) and tinted(picture, 20, 20) and tinted(picture, 100, 60)


@pytest.mark.parametrize("value", [0, 1, 2])
def test_visibility_of_ground_truth(value):
    sample = {
        "boxes": np.float32([[1, 1, 59, 59]]),
        "labels": [1],
        "keypoints": np.float32([[[10, 10, 2], [50, 10, value], [50, 50, 2]]]),
        "fields": (data.Points("keypoints", (3, 3), names=NAMES),),
    }
    picture = drawn(sample)
    assert tinted(picture, 30, 10) == tinted(picture, 50, 10) == (value == 2)
    assert (picture[4:17, 44:57] != 128).any() == (value > 0)


def test_pairs_show_both_sides_and_images_without_keypoints_are_as_before():
    sample = data.StickFigures(1, (96, 96), seed=1, figures=(1, 1))[0]
    found = {name: sample[name] for name in ("boxes", "labels", "masks")}
    assert skeletons_of(found) is None
    plain, pair = (visualize.side_by_side(sample["image"], truth, found) for truth in (found, sample))
    half = plain.shape[1] // 2
    assert (plain[:, :half] != pair[:, :half]).any() and (plain[:, half:] == pair[:, half:]).all()
