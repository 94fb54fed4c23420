"""Final detections on cases computed by hand, and the thresholds of a call."""

import keras
import numpy as np
import pytest

from keras_maskrcnn.heads.detection import ALL, SHOWN, Detection, Limits, select_detections


def numpy(values):
    return [keras.ops.convert_to_numpy(v) for v in values]


# Three regions, two classes; the boxes of the classes differ in y.
REGIONS = np.zeros((1, 3, 3, 4), "float32")
for region, column in np.ndindex(3, 3):
    REGIONS[0, region, column] = [30 * region, 30 * column, 30 * region + 20, 30 * column + 20]


def detections(probabilities, boxes=REGIONS, valid=None, sizes=((200, 200),), threshold=0.05, limit=10, pairs=100):
    probabilities = np.array(probabilities, "float32")
    valid = np.ones(probabilities.shape[:2], bool) if valid is None else np.array(valid)
    limits = Limits(threshold, 0.5, limit)
    found = select_detections(probabilities, boxes, valid, np.array(sizes, "float32"), limits, pairs)
    boxes, scores, labels, valid, region = numpy(found[n] for n in ("boxes", "scores", "labels", "valid", "region"))
    assert [x.dtype for x in (boxes, scores, labels, valid, region)] == ["float32", "float32", "int32", "bool", "int32"]
    for image, slot in np.argwhere(valid):
        assert probabilities[image, region[image, slot], labels[image, slot]] == scores[image, slot]
    assert not region[~valid].any()
    assert (labels[valid] >= 1).all()
    assert not boxes[~valid].any() and not scores[~valid].any() and not labels[~valid].any()
    assert all(row.tolist() == sorted(row, reverse=True) for row in scores)
    return boxes, scores, labels, valid


PROBABILITIES = [[[0.1, 0.7, 0.2], [0.9, 0.04, 0.06], [0.1, 0.5, 0.4]]]


def test_every_class_of_every_region_is_a_candidate():
    boxes, scores, labels, valid = detections(PROBABILITIES)
    np.testing.assert_allclose(scores[0, :5], [0.7, 0.5, 0.4, 0.2, 0.06])
    assert labels[0, :5].tolist() == [1, 1, 2, 2, 2]
    regions = [(0, 1), (2, 1), (2, 2), (0, 2), (1, 2)]
    np.testing.assert_array_equal(boxes[0, :5], [REGIONS[0, r, c] for r, c in regions])
    assert valid[0].tolist() == [True] * 5 + [False]  # 0.04 is below the threshold; background is not a candidate


def test_a_score_at_the_threshold_is_not_a_detection():
    assert detections(PROBABILITIES, threshold=np.float32(0.5))[3].sum() == 1


def test_suppression_within_a_class_not_between_classes():
    same = np.broadcast_to(np.array([10, 10, 30, 30], "float32"), (1, 3, 3, 4))
    _, scores, labels, valid = detections(PROBABILITIES, same)
    np.testing.assert_allclose(scores[valid], [0.7, 0.4])
    assert labels[valid].tolist() == [1, 2]


def test_at_most_a_number_of_boxes_of_a_class_enter_nms():
    probabilities, boxes = np.array(PROBABILITIES, "float32"), REGIONS
    limits, sizes = Limits(0.05, 0.5, 10), np.array([[200, 200]], "float32")
    found = select_detections(probabilities, boxes, np.ones((1, 3), bool), sizes, limits, per_class=1)
    labels, scores, valid = numpy(found[name] for name in ("labels", "scores", "valid"))
    assert labels[valid].tolist() == [1, 2]
    np.testing.assert_allclose(scores[valid], [0.7, 0.4])


@pytest.mark.parametrize(("clip", "count"), [("before_nms", 1), ("after_nms", 2)])
def test_boxes_are_compared_before_or_after_they_are_clipped(clip, count):
    # Inside an image 10 pixels wide both are the same box; whole, one is twice as wide as the other.
    boxes = np.array([[[[0, 0, 10, 10]], [[0, 0, 20.5, 10]]]], "float32")
    probabilities = np.array([[[0.1, 0.9], [0.2, 0.8]]], "float32")
    sizes = np.array([[10, 10]], "float32")
    for nms in ("exact", "fast"):
        found = select_detections(
            probabilities, boxes, np.ones((1, 2), bool), sizes, Limits(0.05, 0.5, 10), nms=nms, clip=clip
        )
        found_boxes, valid = numpy(found[name] for name in ("boxes", "valid"))
        assert valid.sum() == count and (found_boxes[valid] == [0, 0, 10, 10]).all()


def test_empty_slots_give_nothing_even_without_a_threshold():
    _, scores, _, valid = detections(PROBABILITIES, valid=[[False, True, False]], threshold=0.0)
    np.testing.assert_allclose(scores[valid], [0.06, 0.04])


def test_limits_of_candidates_and_detections():
    assert detections(PROBABILITIES, limit=2)[3].shape == (1, 2)
    np.testing.assert_allclose(detections(PROBABILITIES, limit=2)[1], [[0.7, 0.5]])
    np.testing.assert_allclose(detections(PROBABILITIES, pairs=3)[1], [[0.7, 0.5, 0.4]])


def test_detections_are_clipped_and_dropped_if_outside():
    boxes, scores, _, valid = detections(PROBABILITIES, sizes=((45, 75),))
    # 45 high: class 1 (y 30…50) is cut, class 2 (y 60…80) is outside; 75 wide: region 2 (x 60…80) is cut.
    np.testing.assert_allclose(scores[valid], [0.7, 0.5])
    np.testing.assert_array_equal(boxes[valid], [[0, 30, 20, 45], [60, 30, 75, 45]])


def test_images_do_not_mix():
    both = detections(PROBABILITIES * 2, np.concatenate([REGIONS, REGIONS + 100]), sizes=((200, 200), (300, 300)))
    np.testing.assert_array_equal(both[0][0] + 100 * both[3][0][:, None], both[0][1])


def test_nothing_found_is_not_an_error():
    nothing = np.array([[[1.0, 0, 0]] * 3])
    assert not detections(nothing)[3].any()


def test_one_box_for_all_classes():
    found = detections(PROBABILITIES, REGIONS[:, :, :1])
    np.testing.assert_array_equal(found[0][0, :5], REGIONS[0, [0, 2, 2, 0, 1], 0])
    np.testing.assert_allclose(found[1][0, :5], [0.7, 0.5, 0.4, 0.2, 0.06])


# Thresholds of a call -------------------------------------------------------------------------------------------------


def test_arguments_come_before_options_and_options_before_defaults():
    assert Detection().limits() == Limits(ALL, 0.5, 100)
    assert Detection().limits(default_score=SHOWN) == Limits(SHOWN, 0.5, 100)
    own = Detection(score_threshold=0.3, nms_iou=0.4, max_detections=7)
    assert own.limits(default_score=SHOWN) == Limits(0.3, 0.4, 7)
    assert own.limits(0.0, 1.0, 1, default_score=SHOWN) == Limits(0.0, 1.0, 1)
    assert own.limits(np.float32(0.25), 0, np.int64(3)) == Limits(0.25, 0.0, 3)


@pytest.mark.parametrize("name", ["score_threshold", "nms_iou"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf"), "0.5", True, [0.5]])
def test_thresholds_outside_their_range_are_rejected(name, value):
    for make in (Detection, Detection().limits):
        with pytest.raises(ValueError, match=rf"^{name}=.* must be a number from 0 to 1$"):
            make(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", True, float("nan")])
def test_numbers_of_detections_below_one_are_rejected(value):
    for make in (Detection, Detection().limits):
        with pytest.raises(ValueError, match=r"^max_detections=.* must be a whole number of at least 1$"):
            make(max_detections=value)
