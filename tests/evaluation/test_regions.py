"""Scores of the stages inside a detector: anchors, proposals, classes of proposals. Computed by hand."""

import math
import types

import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data, evaluation
from keras_maskrcnn.heads.anchors import Anchors, AnchorSampling
from keras_maskrcnn.heads.rpn import RPNStage
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.ops.losses import smooth_l1

SIDE = 64
A, B, C = (0, 0, 20, 20), (30, 30, 60, 60), (40, 0, 60, 20)


class Reader(list):
    class_names = ("cat", "dog")


class FakeRPN:
    """An RPN with given outputs and options."""

    def __init__(self, sizes, sampling, outputs=None):
        self.outputs, self.stage, self.sampling = outputs, RPNStage(beta=1.0), AnchorSampling(**sampling)
        self.anchors = Anchors(sizes=sizes, ratios=(1.0,), offset=0.5)

    def __call__(self, features):
        return self.outputs


class FakeFirstStage:
    """Gives the proposals that it was made with, image by image."""

    def __init__(self, answers):
        self.answers = list(answers)

    def detect(self, images, score_threshold, max_detections):
        answers = [self.answers.pop(0) for _ in images]
        return [{key: value[:max_detections] for key, value in answer.items()} for answer in answers]


def sample(boxes, labels, crowd=None):
    masks = np.zeros((len(boxes), SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return {
        "image": np.zeros((SIDE, SIDE, 3), np.uint8),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int32),
        "masks": masks,
        "crowd": np.array(crowd if crowd is not None else [False] * len(boxes), bool),
        "image_id": 1,
        "source": "image",
    }


def proposals(boxes, classes=None):
    """Proposals by descending score; `classes` is what the box head takes each for, 0 for background."""
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.ones(len(boxes), np.int32),
        "scores": np.linspace(0.9, 0.1, len(boxes)).astype(np.float32),
        "probabilities": np.eye(3, dtype=np.float32)[classes if classes is not None else [0] * len(boxes)],
    }


# Proposal recall ------------------------------------------------------------------------------------------------------


def test_recall_rises_with_the_number_of_proposals():
    # A is hit by the first proposal, B by the third, C never; in the second image A is hit by the first.
    first = proposals([A, (0, 40, 10, 60), (32, 30, 60, 60)])
    stage = FakeFirstStage([first, proposals([A])])
    recall = evaluation.proposal_recall(stage, Reader([sample([A, B, C], [1, 1, 2]), sample([A], [1])]), limits=(1, 3))
    assert recall == {1: 2 / 4, 3: 3 / 4}


def test_recall_needs_the_overlap():
    answer = proposals([(0, 0, 20, 14)])  # IoU 0.7
    truth = Reader([sample([A], [1])])
    assert evaluation.proposal_recall(FakeFirstStage([answer]), truth, iou=0.7) == {1: 1.0, 10: 1.0, 100: 1.0}
    assert evaluation.proposal_recall(FakeFirstStage([answer]), truth, iou=0.71)[100] == 0.0


def test_crowds_are_no_objects():
    truth = Reader([sample([A, B], [1, 1], crowd=[False, True])])
    assert evaluation.proposal_recall(FakeFirstStage([proposals([A])]), truth)[1] == 1.0


def test_recall_without_objects_or_proposals():
    assert math.isnan(evaluation.proposal_recall(FakeFirstStage([proposals([A])]), Reader([sample([], [])]))[1])
    assert evaluation.proposal_recall(FakeFirstStage([proposals([])]), Reader([sample([A], [1])]))[1] == 0.0


def test_recall_refuses_a_limit_of_nothing():
    with pytest.raises(ValueError, match="must be 1 or more"):
        evaluation.proposal_recall(FakeFirstStage([]), Reader([]), limits=(0, 1))


def test_candidates_under_two_rules():
    # Candidates: the object (IoU 1) and proposals of IoU 0.6 and 0. The crowd region B is not a candidate.
    truth = Reader([sample([A, B], [1, 1], crowd=[False, True]), sample([], [])])

    def counts(*rule):
        stage = FakeFirstStage([proposals([(0, 0, 20, 12), C]), proposals([C])])
        return evaluation.candidate_counts(stage, truth, *rule).tolist()

    assert counts(0.5, 0.5) == [[2, 1, 0], [0, 1, 0]]
    assert counts(0.7, 0.3) == [[1, 1, 1], [0, 1, 0]]


# Classes of proposals -------------------------------------------------------------------------------------------------


def test_background_is_a_class_like_any_other():
    # Cat A: one proposal right, one taken for background. Dog B: taken for a cat. Elsewhere: right, and once a dog.
    boxes = [A, (0, 0, 20, 18), B, C, (40, 0, 50, 20)]
    truth = Reader([sample([A, B], [1, 2])])
    report = evaluation.region_report(FakeFirstStage([proposals(boxes, [1, 0, 1, 0, 2])]), truth)
    np.testing.assert_array_equal(report["confusion"], [[1, 0, 1], [1, 0, 0], [0, 1, 1]])
    assert report["names"] == ["cat", "dog", "background"]
    assert report["accuracy"] == report["overall"]["f1"] == 2 / 5
    cat, dog, background = (report["classes"][name] for name in report["names"])
    assert (cat["precision"], cat["recall"], cat["f1"]) == (1 / 2, 1 / 2, 1 / 2)
    assert (dog["precision"], dog["recall"], dog["f1"]) == (0.0, 0.0, 0.0)
    assert (background["precision"], background["recall"], background["f1"]) == (1 / 2, 1 / 2, 1 / 2)


def test_a_proposal_has_the_class_of_the_object_that_it_overlaps_most():
    # IoU with the cat 16/24, with the dog 1.
    cat, dog = (0, 0, 20, 20), (4, 0, 24, 20)
    report = evaluation.region_report(FakeFirstStage([proposals([dog], [2])]), Reader([sample([cat, dog], [1, 2])]))
    np.testing.assert_array_equal(report["confusion"], [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_half_an_overlap_decides():
    half, less = (0, 0, 20, 10), (0, 0, 20, 9)
    report = evaluation.region_report(FakeFirstStage([proposals([half, less], [1, 0])]), Reader([sample([A], [1])]))
    assert report["accuracy"] == 1.0
    np.testing.assert_array_equal(report["confusion"], [[1, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_proposals_in_a_crowd_are_left_out():
    truth = Reader([sample([A, B], [1, 1], crowd=[False, True])])
    report = evaluation.region_report(FakeFirstStage([proposals([A, (32, 32, 42, 42), C], [1, 1, 0])]), truth)
    np.testing.assert_array_equal(report["confusion"], [[1, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_images_add_up_and_may_be_empty():
    stage = FakeFirstStage([proposals([A], [1]), proposals([], []), proposals([B], [0])])
    report = evaluation.region_report(stage, Reader([sample([A], [1]), sample([B], [2]), sample([], [])]))
    assert report["confusion"].sum() == 2 and report["accuracy"] == 1.0
    assert math.isnan(report["classes"]["dog"]["recall"])


def test_table_of_regions():
    report = evaluation.region_report(FakeFirstStage([proposals([A, B], [1, 1])]), Reader([sample([A], [1])]))
    lines = evaluation.format_regions(report).splitlines()
    assert lines[0] == "0.500 of 2 proposals have the right class"
    assert lines[2].split() == ["precision", "recall", "F1", "right", "wrong", "missed"]
    assert lines[3].split() == ["cat", "0.500", "1.000", "0.667", "1", "1", "0"]
    assert lines[5].split() == ["background", "-", "0.000", "0.000", "0", "0", "1"]


# Anchors --------------------------------------------------------------------------------------------------------------


def fake_rpn(logits, deltas=None, **sampling):
    """A model of one level of 2×2 cells whose anchors are the four quarters of a 64-pixel canvas."""
    logits = np.array([logits], np.float32)
    deltas = np.zeros((1, 4, 4), np.float32) if deltas is None else np.array([deltas], np.float32)
    return types.SimpleNamespace(
        features=lambda images, sizes, training: {"P5": images},
        rpn=FakeRPN(((32,),), sampling, ([logits], [deltas])),
        strides=(32,),
    )


def one_batch(*boxes, size=(SIDE, SIDE)):
    count = len(boxes)
    x = {"images": np.zeros((1, SIDE, SIDE, 3), np.uint8), "sizes": np.array([size], np.float32)}
    y = {
        "boxes": np.array([boxes], np.float32),
        "labels": np.ones((1, count), np.int32),
        "masks": np.zeros((1, count, 4, 4), np.uint8),
        "crowd": np.zeros((1, count), bool),
        "valid": np.ones((1, count), bool),
    }
    return x, y


def test_every_anchor_with_a_role_counts():
    # Anchor 0 lies on the object (positive, taken for one), 1 and 2 are negative (one of them wrong), 3 too (right).
    model = fake_rpn([2.0, -1.0, 3.0, -0.5])
    report = evaluation.anchor_report(model, [one_batch((0, 0, 32, 32))])
    assert (report["positives"], report["negatives"]) == (1, 3)
    assert (report["accuracy"], report["positive_accuracy"]) == (3 / 4, 1.0)
    assert report["negative_accuracy"] == pytest.approx(2 / 3)
    assert (report["box_error"], report["mean_iou"]) == (0.0, 1.0)


def test_ignored_anchors_do_not_count():
    # IoU of the object with anchor 1 is 0.53, its best; with anchor 0 it is 0.44, between low and high.
    batch = one_batch((4, 0, 64, 32))
    report = evaluation.anchor_report(fake_rpn([9.0, 5.0, -1.0, -1.0]), [batch])
    assert (report["positives"], report["negatives"], report["accuracy"]) == (1, 2, 1.0)
    strict = evaluation.anchor_report(fake_rpn([9.0, 5.0, -1.0, -1.0], low=0.5), [batch])
    assert (strict["positives"], strict["negatives"], strict["accuracy"]) == (1, 3, 3 / 4)


def test_anchors_that_cross_the_border_do_not_count():
    # The image fills the left 40 columns of the canvas, so that anchors 1 and 3 cross its border.
    batch = one_batch((0, 0, 32, 32), size=(64, 40))
    kept = evaluation.anchor_report(fake_rpn([2.0, 5.0, -1.0, -1.0]), [batch])
    assert (kept["positives"], kept["negatives"], kept["accuracy"]) == (1, 3, 3 / 4)
    ignored = evaluation.anchor_report(fake_rpn([2.0, 5.0, -1.0, -1.0], cross_boundary="ignore"), [batch])
    assert (ignored["positives"], ignored["negatives"], ignored["accuracy"]) == (1, 1, 1.0)


def test_error_and_overlap_of_the_boxes():
    # Object of 32×32 pixels, 8 to the right of its anchor: t = (0.25, 0, 0, 0); said is (0.25, 0, 0, log 0.5).
    deltas = np.zeros((4, 4))
    deltas[0] = 0.25, 0, 0, math.log(0.5)
    report = evaluation.anchor_report(fake_rpn([1.0, -1, -1, -1], deltas), [one_batch((8, 0, 40, 32))])
    assert report["positives"] == 1
    assert report["box_error"] == pytest.approx(0.5 * math.log(0.5) ** 2, rel=1e-5)
    assert report["mean_iou"] == pytest.approx(0.5, rel=1e-5)


def test_no_object_no_positive():
    x, y = one_batch((0, 0, 32, 32))
    report = evaluation.anchor_report(fake_rpn([1.0, -1, -1, -1]), [(x, {**y, "valid": np.zeros((1, 1), bool)})])
    assert (report["positives"], report["negatives"], report["accuracy"]) == (0, 4, 3 / 4)
    assert math.isnan(report["box_error"]) and math.isnan(report["positive_accuracy"])


def test_steps_and_no_batch():
    model, batch = fake_rpn([1.0, -1, -1, -1]), one_batch((0, 0, 32, 32))
    assert evaluation.anchor_report(model, iter([batch] * 5), steps=2)["positives"] == 2
    with pytest.raises(ValueError, match="no batch"):
        evaluation.anchor_report(model, [])


def test_roles_and_counts_of_anchors():
    model = types.SimpleNamespace(
        rpn=FakeRPN(((16,),), {"cross_boundary": "ignore"}),
        strides=(16,),
    )
    x = {"images": np.zeros((1, 48, 64, 3), np.uint8), "sizes": np.array([[48, 56]], np.float32)}
    y = {
        "boxes": np.array([[[16, 16, 32, 32], [1, 1, 9, 9], [0, 0, 0, 0]]], np.float32),
        "labels": np.array([[1, 1, 0]]),
        "masks": np.zeros((1, 3, 8, 8), np.uint8),
        "crowd": np.zeros((1, 3), bool),
        "valid": np.array([[True, True, False]]),
    }
    found = evaluation.anchor_roles(model, {**x, **y})
    assert len(found["anchors"]) == 12
    assert np.flatnonzero(found["crossing"][0]).tolist() == [3, 7, 11]  # the image ends at 56 of 64 pixels
    assert np.flatnonzero(found["role"][0] == 1).tolist() == [0, 5]
    assert np.flatnonzero(found["forced"][0]).tolist() == [0]  # the best of the small box, by an IoU of 0.25
    assert (found["role"][0][[3, 7, 11]] == -1).all()
    assert (found["role"][0] == 0).sum() == 7
    expected = {"positive": 2.0, "negative": 7.0, "ignored": 0.0, "crossing": 3.0, "all": 12, "forced": 0.5}
    assert evaluation.anchor_counts(model, [(x, y)]) == expected


# A real model ---------------------------------------------------------------------------------------------------------


def test_a_model_and_its_first_stage():
    shapes = data.Shapes(2, image_size=(64, 64), seed=5, object_size=(12, 30))
    model = MaskRCNN(
        3,
        backbone={"name": "resnet10", "width": 8, "norm": "group"},
        fpn_channels=16,
        anchors={"sizes": ((12,), (24,), (48,), (64,), (96,))},
        proposals={"pre_nms": 50, "post_nms": 20},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        image_size=(64, 64),
        seed=7,
    )
    batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28)
    report = evaluation.anchor_report(model, batches)
    stage = FirstStage(model, max_proposals=20, classify=True)
    # The same figure from the other side: logits of the view, objects matched by NumPy.
    x, y = next(iter(batches))
    said = {name: np.asarray(values) for name, values in stage(x).items()}
    assert report["positives"] >= int(np.asarray(y["valid"]).sum())
    assert report["positives"] + report["negatives"] <= said["logits"].size
    high = model.rpn.sampling.high
    overlap = np.stack([_iou(stage.anchors((64, 64)), boxes) for boxes in np.asarray(y["boxes"])])
    best = (overlap == overlap.max(axis=1, keepdims=True)) & (overlap > 0)
    positive = (overlap.max(axis=2) >= high) | best.any(axis=2)
    assert report["positives"] == positive.sum()
    assert report["positive_accuracy"] == pytest.approx((said["logits"][positive] >= 0).mean())
    targets = np.asarray(y["boxes"])[np.nonzero(positive)[0], overlap.argmax(axis=2)[positive]]
    anchors = stage.anchors((64, 64))[np.nonzero(positive)[1]]
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    shift = ((targets[:, :2] + targets[:, 2:]) / 2 - centre) / size
    wanted = np.concatenate([shift, np.log((targets[:, 2:] - targets[:, :2]) / size)], axis=1)
    error = np.asarray(smooth_l1(said["deltas"][positive] - wanted, model.rpn.stage.beta)).sum(axis=1)
    assert report["box_error"] == pytest.approx(error.mean(), rel=1e-3)

    regions = evaluation.region_report(stage, shapes, batch_size=2)
    assert 0 < regions["confusion"].sum() <= 40
    recall = evaluation.proposal_recall(stage, shapes, limits=(1, 20), batch_size=2)
    assert 0 <= recall[1] <= recall[20] <= 1


def _iou(first, second):
    """IoU of every pair, [n, m]; NumPy's own."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared)
