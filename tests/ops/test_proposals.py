"""Proposals and final detections on cases that can be followed by hand."""

import math

import keras
import numpy as np

from keras_maskrcnn.ops.gather import rows
from keras_maskrcnn.ops.proposals import select_detections, select_proposals


def numpy(values):
    return [keras.ops.convert_to_numpy(v) for v in values]


def proposals(logits, deltas, anchors, sizes, pre_nms=10, post_nms=10, nms_iou=0.7, min_size=1.0):
    logits, deltas, anchors = ([np.array(x, "float32") for x in levels] for levels in (logits, deltas, anchors))
    found = select_proposals(logits, deltas, anchors, np.array(sizes, "float32"), pre_nms, post_nms, nms_iou, min_size)
    boxes, scores, valid = numpy(found)
    assert (boxes.dtype, scores.dtype, valid.dtype) == ("float32", "float32", "bool")
    assert not boxes[~valid].any() and not scores[~valid].any()
    assert all((np.diff(row[kept]) <= 0).all() for row, kept in zip(scores, valid, strict=True))
    return boxes, valid


FINE = [[0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50]]  # IoU of the first two: 90 / 110
COARSE = [[0, 0, 10, 10], [20, 20, 60, 60]]


def test_rows_takes_each_image_by_its_own_index():
    values = np.arange(12).reshape(2, 3, 2)
    found = numpy([rows(values, np.array([[2, 0, 0, 1], [1, 1, 2, 0]], "int32"))])[0]
    np.testing.assert_array_equal(found[0], [[4, 5], [0, 1], [0, 1], [2, 3]])
    np.testing.assert_array_equal(found[1], [[8, 9], [8, 9], [10, 11], [6, 7]])


def test_best_first_and_suppressed_within_a_level_only():
    logits = [[[2, 3, 1]], [[2.5, 0]]]
    boxes, valid = proposals(logits, [np.zeros((1, 3, 4)), np.zeros((1, 2, 4))], [FINE, COARSE], [[100, 100]])
    # 3: FINE[1]; it suppresses FINE[0], but not COARSE[0] (2.5), the same box on another level.
    assert valid.tolist() == [[True] * 4 + [False]]
    np.testing.assert_allclose(boxes[0, :4], [FINE[1], COARSE[0], FINE[2], COARSE[1]], atol=1e-4)


def test_pre_nms_limits_each_level_and_post_nms_the_image():
    logits = [[[2, 3, 1]], [[2.5, 0]]]
    deltas = [np.zeros((1, 3, 4)), np.zeros((1, 2, 4))]
    boxes, valid = proposals(logits, deltas, [FINE, COARSE], [[100, 100]], pre_nms=1)
    assert valid.tolist() == [[True, True]]
    np.testing.assert_allclose(boxes[0], [FINE[1], COARSE[0]], atol=1e-4)
    boxes, valid = proposals(logits, deltas, [FINE, COARSE], [[100, 100]], post_nms=3)
    np.testing.assert_allclose(boxes[0], [FINE[1], COARSE[0], FINE[2]], atol=1e-4)


def test_boxes_are_decoded_clipped_to_their_image_and_dropped_when_small():
    # Anchor [40, 40, 50, 50], moved right by one width and doubled: centre (55, 45), 20 × 20.
    deltas = np.array([[[1, 0, math.log(2), math.log(2)]]] * 2)
    logits = np.zeros((2, 1))
    boxes, valid = proposals([logits], [deltas], [[FINE[2]]], [[50, 60], [100, 46]], min_size=1.5)
    np.testing.assert_allclose(boxes[0, 0], [45, 35, 60, 50], rtol=1e-5)  # the first image is 60 wide and 50 high
    assert valid.tolist() == [[True], [False]]  # in the second only one pixel of width is left


# Three regions, two classes; class-specific boxes are told apart by their y.
REGIONS = np.zeros((1, 3, 3, 4), "float32")
for region, column in np.ndindex(3, 3):
    REGIONS[0, region, column] = [30 * region, 30 * column, 30 * region + 20, 30 * column + 20]


def detections(probabilities, boxes=REGIONS, valid=None, sizes=((200, 200),), threshold=0.05, most=10, pairs=100):
    probabilities = np.array(probabilities, "float32")
    valid = np.ones(probabilities.shape[:2], bool) if valid is None else np.array(valid)
    found = select_detections(probabilities, boxes, valid, np.array(sizes, "float32"), threshold, 0.5, most, pairs)
    boxes, scores, labels, valid, region = numpy(found)
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
    assert valid[0].tolist() == [True] * 5 + [False]  # 0.04 is below the threshold; background is never one


def test_a_score_at_the_threshold_is_no_detection():
    assert detections(PROBABILITIES, threshold=np.float32(0.5))[3].sum() == 1


def test_suppression_within_a_class_not_between_classes():
    same = np.broadcast_to(np.array([10, 10, 30, 30], "float32"), (1, 3, 3, 4))
    _, scores, labels, valid = detections(PROBABILITIES, same)
    np.testing.assert_allclose(scores[valid], [0.7, 0.4])
    assert labels[valid].tolist() == [1, 2]


def test_empty_slots_give_nothing_even_without_a_threshold():
    _, scores, _, valid = detections(PROBABILITIES, valid=[[False, True, False]], threshold=0.0)
    np.testing.assert_allclose(scores[valid], [0.06, 0.04])


def test_limits_of_candidates_and_detections():
    assert detections(PROBABILITIES, most=2)[3].shape == (1, 2)
    np.testing.assert_allclose(detections(PROBABILITIES, most=2)[1], [[0.7, 0.5]])
    np.testing.assert_allclose(detections(PROBABILITIES, pairs=3)[1], [[0.7, 0.5, 0.4]])


def test_detections_are_clipped_and_gone_when_outside():
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
