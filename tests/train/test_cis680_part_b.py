"""Part B of the assignment: the cases that the report selects, computed by hand."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "train"))

from cis680_report import cases, part_b, roi
from keras_maskrcnn.heads.detection import Detection

A, B = (0, 0, 20, 20), (30, 30, 60, 60)


class Reader(list):
    class_names = ("cat", "dog")


class FakeModel:
    detection = Detection()

    def __init__(self, answers):
        self.answers = list(answers)

    def detect(self, images, score_threshold, max_detections):
        answers = [self.answers.pop(0) for _ in images]
        return [{key: value[a["scores"] >= score_threshold] for key, value in a.items()} for a in answers]


def sample(boxes, labels, crowd=None):
    return {
        "image": np.zeros((64, 64, 3), np.uint8),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int32),
        "crowd": np.array([False] * len(boxes) if crowd is None else crowd, bool),
    }


def found(boxes, labels, scores, proposals=None):
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int32),
        "scores": np.array(scores, np.float32),
        "proposals": np.array(boxes if proposals is None else proposals, np.float32).reshape(-1, 4),
    }


def test_the_proposal_nearest_to_half_of_its_object():
    # A from a proposal of IoU 0.9, B from one of 0.5; in the second image A from one of 0.6.
    first = found([A, B], [1, 2], [0.9, 0.8], [(0, 0, 20, 18), (30, 30, 60, 45)])
    model = FakeModel([first, found([A], [1], [0.9], [(0, 0, 20, 12)])])
    case = cases.half_covered(model, Reader([sample([A, B], [1, 2]), sample([A], [1])]))
    assert (case.covered, case.before, case.after, case.label) == (0.5, 0.5, 1.0, 2)
    assert case.score == pytest.approx(0.8)
    np.testing.assert_array_equal([case.proposals, case.boxes, case.truth], [(30, 30, 60, 45), B, B])
    drawn = part_b._refinement(case._asdict())
    assert [(name, tuple(box)) for name, box, _, _ in drawn] == [
        ("object", B),
        ("proposal", (30, 30, 60, 45)),
        ("refined box", B),
    ]


def test_no_such_case():
    # A wrong class, a box that does not fit, a crowd, a weak score.
    half, truth = (0, 0, 20, 10), sample([A], [1])
    wrong = found([A], [2], [0.9], [half]), found([(0, 0, 20, 13)], [1], [0.9], [half])
    rest = found([A], [1], [0.9], [half]), found([A], [1], [0.4], [half])
    images = Reader([truth, truth, sample([A], [1], crowd=[True]), truth])
    assert cases.half_covered(FakeModel([*wrong, *rest]), images) is None


def test_the_false_positive_of_highest_score():
    alone, sure = (40, 0, 60, 20), (0, 40, 20, 60)
    images = Reader([sample([A], [1]), sample([A, B], [1, 2]), sample([], [])])
    answers = [found([A, alone], [1, 1], [0.9, 0.3]), found([A, sure], [1, 2], [0.9, 0.6]), found([A], [1], [0.5])]
    case = cases.false_positive(FakeModel(answers), images)
    np.testing.assert_array_equal(case.box, sure)
    assert (case.label, case.overlap) == (2, 0.0) and case.score == pytest.approx(0.6)
    assert cases.false_positive(FakeModel([found([(0, 0, 20, 10)], [2], [0.9])]), Reader([sample([A], [1])])) is None


def test_samples_of_the_bins():
    box = np.array([10.0, 20.0, 26.0, 28.0])
    bins, regular = roi.bins_and_samples(box, 2)
    np.testing.assert_array_equal(bins, [(10, 20, 18, 24), (18, 20, 26, 24), (10, 24, 18, 28), (18, 24, 26, 28)])
    assert np.unique(regular[..., 0]).tolist() == [12, 16, 20, 24]
    assert np.unique(regular[..., 1]).tolist() == [21, 23, 25, 27]
    _, random = roi.bins_and_samples(box, 2, np.random.default_rng(0))
    assert (random >= bins[:, None, :2]).all() and (random <= bins[:, None, 2:]).all()
    assert np.abs(random - regular).max() > 0.5
