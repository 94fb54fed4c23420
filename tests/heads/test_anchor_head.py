"""The prediction head of YOLACT: order of its outputs, losses against loops, hard negatives, detections."""

import keras
import numpy as np
import pytest

from keras_maskrcnn.heads.anchor_head import AnchorHead, AnchorMatching, Assigned, Predicted
from keras_maskrcnn.heads.detection import Limits

RNG = np.random.default_rng(0)
CLASSES, ANCHORS = 3, 40


def make_head(**options):
    head = AnchorHead(CLASSES, (8, 16), coefficients=5, anchors={"sizes": [[12], [24]], **ANCHOR_OPTIONS}, **options)
    head.build((None, None, None, 4))
    return head


ANCHOR_OPTIONS = {"ratios": [1.0, 2.0], "offset": 0.5, "spacing": "cells"}
LEVELS = [np.zeros((1, 4, 4, 4), "float32"), np.zeros((1, 2, 2, 4), "float32")]  # of a canvas of 32 × 32 pixels


def test_outputs_are_in_the_order_of_the_anchors():
    head = make_head(stage={"width": 4})
    levels = [RNG.normal(size=(1, 3, 5, 4)).astype("float32"), RNG.normal(size=(1, 2, 3, 4)).astype("float32")]
    found = head(levels)
    anchors = head.boxes((23, 37), levels)
    assert [tuple(values.shape) for values in (*found, anchors)] == [(1, 42, 4), (1, 42, 4), (1, 42, 5), (42, 4)]
    hidden = head.stack(levels[0])
    rows, columns, anchor = 2, 1, 1
    row = (rows * 5 + columns) * 2 + anchor
    expected = np.asarray(head.classes(hidden))[0, rows, columns, anchor * 4 : anchor * 4 + 4]
    np.testing.assert_allclose(np.asarray(found.logits)[0, row], expected, rtol=1e-5)
    masks = np.tanh(np.asarray(head.masks(hidden))[0, rows, columns, 5:])
    np.testing.assert_allclose(np.asarray(found.coefficients)[0, row], masks, rtol=1e-5)
    centre = (np.asarray(anchors)[row, :2] + np.asarray(anchors)[row, 2:]) / 2
    np.testing.assert_allclose(centre, [1.5 * 37 / 5, 2.5 * 23 / 3], rtol=1e-5)


def random_case(positives):
    """(predicted, assigned, truth) of two images with the given numbers of positives and some neutrals."""
    logits = RNG.normal(size=(2, ANCHORS, CLASSES + 1)).astype("float32")
    deltas = RNG.normal(size=(2, ANCHORS, 4)).astype("float32")
    corner = RNG.uniform(0, 30, (ANCHORS, 2))
    anchors = np.concatenate([corner, corner + RNG.uniform(8, 20, (ANCHORS, 2))], axis=1).astype("float32")
    role = np.zeros((2, ANCHORS), "int32")
    for image, count in enumerate(positives):
        chosen = RNG.permutation(ANCHORS)
        role[image, chosen[:count]], role[image, chosen[count : count + 5]] = 1, -1
    start = RNG.uniform(0, 30, (2, 4, 2))
    truth = {
        "boxes": np.concatenate([start, start + RNG.uniform(5, 25, (2, 4, 2))], axis=-1).astype("float32"),
        "labels": RNG.integers(1, CLASSES + 1, (2, 4)).astype("int32"),
    }
    matched = RNG.integers(0, 4, (2, ANCHORS)).astype("int32")
    return Predicted(logits, deltas, None), Assigned(anchors, matched, role), truth


def reference(predicted, assigned, truth, factors):
    """Class and box loss by loops: SSD's losses with three hard negatives per positive, over the positives."""
    class_loss = box_loss = 0.0
    chosen_negatives = 0
    for image in range(2):
        logits, role = predicted.logits[image].astype("float64"), assigned.role[image]
        log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        negatives = sorted(np.flatnonzero(role == 0), key=lambda a: log_probability[a, 0])[: 3 * (role == 1).sum()]
        chosen_negatives += len(negatives)
        class_loss -= factors[0] * sum(log_probability[a, 0] for a in negatives)
        for a in np.flatnonzero(role == 1):
            row = assigned.matched[image, a]
            label = truth["labels"][image, row]
            class_loss -= factors[label] * log_probability[a, label]
            box, anchor = truth["boxes"][image, row], assigned.anchors[a]
            size, anchor_size = box[2:] - box[:2], anchor[2:] - anchor[:2]
            shift = ((box[:2] + box[2:]) / 2 - (anchor[:2] + anchor[2:]) / 2) / anchor_size / 0.1
            error = np.abs(predicted.deltas[image, a] - np.concatenate([shift, np.log(size / anchor_size) / 0.2]))
            box_loss += np.where(error < 1, 0.5 * error**2, error - 0.5).sum()
    count = max((assigned.role == 1).sum(), 1)
    return class_loss / count, 1.5 * box_loss / count, chosen_negatives / 2


@pytest.mark.parametrize("positives", [(3, 5), (0, 4), (0, 0), (15, 2)])
@pytest.mark.parametrize("factors", [None, [0.5, 1.0, 2.0, 3.0]])
def test_losses_are_those_of_loops(positives, factors):
    case = random_case(positives)
    weights = None if factors is None else np.array(factors, "float32")
    found = {name: float(value) for name, value in make_head().losses(*case, class_weights=weights).items()}
    class_loss, box_loss, negatives = reference(*case, factors or [1.0] * 4)
    np.testing.assert_allclose(found["class_loss"], class_loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["box_loss"], box_loss, rtol=1e-4, atol=1e-6)
    assert found["positives"] == sum(positives) / 2 and found["negatives"] == negatives


def test_anchors_are_assigned_by_the_thresholds_of_ssd():
    head = make_head()
    anchors = np.asarray(head.boxes((32, 32), LEVELS))
    truth = {
        "boxes": np.stack([anchors[10], anchors[12]])[None],  # the second is padding
        "valid": np.array([[True, False]]),
        "crowd": np.zeros((1, 2), bool),
    }
    assigned = head.assign(anchors, truth)
    overlap = np.asarray(keras.ops.convert_to_numpy(_iou(anchors, anchors[10])))
    expected = np.where(overlap >= 0.5, 1, np.where(overlap < 0.4, 0, -1))
    np.testing.assert_array_equal(assigned.role[0], expected)


def _iou(boxes, box):
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    both = np.maximum(sides, 0).prod(axis=1)
    return both / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - both)


def test_detections_carry_the_coefficients_of_their_anchors():
    head = make_head(detection={"nms": "fast", "per_class": 10})
    anchors = head.boxes((32, 32), LEVELS)
    count = len(anchors)
    logits = np.full((1, count, CLASSES + 1), [9, 0, 0, 0], "float32")
    logits[0, 7] = [0, 0, 9, 0]
    deltas, coefficients = np.zeros((1, count, 4), "float32"), RNG.normal(size=(1, count, 5)).astype("float32")
    found, chosen = head.detect(
        Predicted(logits, deltas, coefficients), anchors, np.array([[32, 32]], "float32"), Limits(0.5, 0.5, 4)
    )
    assert np.asarray(found["valid"]).sum() == 1 and int(found["labels"][0, 0]) == 2
    np.testing.assert_array_equal(np.asarray(chosen)[0, 0], coefficients[0, 7])
    np.testing.assert_allclose(found["boxes"][0, 0], np.clip(np.asarray(anchors)[7], 0, 32), atol=1e-4)


def test_matching_refuses_thresholds_and_numbers_that_are_not_possible():
    with pytest.raises(ValueError, match=r"low=0\.6, high=0\.5 must be 0 ≤ low ≤ high ≤ 1"):
        AnchorMatching(low=0.6)
    with pytest.raises(ValueError, match="negatives=-1 must be 0 or more"):
        AnchorMatching(negatives=-1)


def test_sizes_for_another_number_of_levels_are_refused():
    with pytest.raises(ValueError, match="sizes for 2 levels, the pyramid has 1"):
        AnchorHead(3, (8,), anchors={"sizes": [[12], [24]]})
