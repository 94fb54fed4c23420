"""Precision, recall and confusion, computed by hand; text tables."""

import math

import numpy as np
import pytest

from keras_maskrcnn import evaluation
from keras_maskrcnn.evaluation.matching import match

SIDE = 64
A, B, C, D = (0, 0, 20, 20), (30, 30, 60, 60), (0, 40, 20, 60), (40, 0, 60, 20)


class Reader(list):
    class_names = ("cat", "dog")


class FakeModel:
    def __init__(self, predictions):
        self.predictions = list(predictions)

    def detect(self, images, score_threshold, max_detections):
        predictions = [self.predictions.pop(0) for _ in images]
        return [{key: value[a["scores"] >= score_threshold] for key, value in a.items()} for a in predictions]


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


def found(boxes, labels, scores):
    parts = sample(boxes, labels)
    return {**{key: parts[key] for key in ("boxes", "labels", "masks")}, "scores": np.array(scores, np.float32)}


def report(samples, predictions, **options):
    return evaluation.precision_recall(FakeModel(predictions), Reader(samples), **options)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_all_kinds_of_errors(kind):
    # Cat A found, cat B predicted as dog, dog C missed, a false positive cat at D; a low score is not counted.
    samples = [sample([A, B, C], [1, 1, 2])]
    predictions = [found([A, B, D, C], [1, 2, 1, 2], [0.9, 0.8, 0.7, 0.4])]
    result = report(samples, predictions, kind=kind)
    np.testing.assert_array_equal(result["confusion"], [[1, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert result["names"] == ["cat", "dog", "background"]
    cat, dog = result["classes"]["cat"], result["classes"]["dog"]
    assert (cat["true_positives"], cat["false_positives"], cat["false_negatives"]) == (1, 1, 1)
    assert (cat["precision"], cat["recall"], cat["f1"]) == (0.5, 0.5, 0.5)
    assert (dog["precision"], dog["recall"], dog["f1"]) == (0.0, 0.0, 0.0)
    overall = result["overall"]
    assert (overall["true_positives"], overall["false_positives"], overall["false_negatives"]) == (1, 2, 2)
    assert overall["precision"] == overall["recall"] == pytest.approx(1 / 3)


def test_counts_add_up_over_images():
    samples = [sample([A], [1]), sample([B], [1]), sample([], [])]
    predictions = [found([A], [1], [0.9]), found([], [], []), found([C], [1], [0.9])]
    overall = report(samples, predictions)["overall"]
    assert (overall["precision"], overall["recall"], overall["f1"]) == (0.5, 0.5, 0.5)


def test_second_detection_of_one_object_is_wrong():
    result = report([sample([A], [1])], [found([A, A], [1, 1], [0.9, 0.8])])
    np.testing.assert_array_equal(result["confusion"], [[1, 0, 0], [0, 0, 0], [1, 0, 0]])


def test_the_right_class_matches_before_a_higher_score_of_another_class():
    result = report([sample([A], [1])], [found([A, A], [2, 1], [0.9, 0.8])])
    np.testing.assert_array_equal(result["confusion"], [[1, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_each_detection_matches_the_object_of_highest_iou():
    # Two objects overlap; the detection of higher score lies exactly on the second.
    left, right = (0, 0, 20, 20), (4, 0, 24, 20)  # IoU 16/24
    model = FakeModel([found([right, left], [1, 1], [0.9, 0.8])])
    [image] = evaluation.collect(model, Reader([sample([left, right], [1, 1])])).images("bbox")
    classes, matched = match(image, 0.5)
    np.testing.assert_array_equal(classes, [0, 0])
    np.testing.assert_array_equal(matched, [0, 0])


def test_threshold_of_overlap():
    samples, predictions = [sample([A], [1])], [found([(0, 0, 20, 14)], [1], [0.9])]  # IoU 0.7
    assert report(samples, predictions, iou=0.7)["overall"]["true_positives"] == 1
    assert report(samples, predictions, iou=0.71)["overall"]["true_positives"] == 0


def test_mask_and_box_overlap_differ():
    prediction = found([A], [1], [0.9])
    prediction["masks"][0, :, 10:] = False  # half of the mask, the whole box
    assert report([sample([A], [1])], [prediction], kind="bbox", iou=0.6)["overall"]["true_positives"] == 1
    prediction = {**prediction, "boxes": prediction["boxes"].copy()}
    assert report([sample([A], [1])], [prediction], kind="segm", iou=0.6)["overall"]["true_positives"] == 0


def test_crowd_is_neither_an_object_nor_an_error():
    crowded = sample([A, B], [1, 1], crowd=[False, True])
    predictions = found([A, (32, 32, 42, 42), (44, 44, 58, 58)], [1, 1, 2], [0.9, 0.8, 0.7])
    result = report([crowded], [predictions])
    # The cat on the crowd of cats is not counted; the dog on it is a false positive of dog.
    np.testing.assert_array_equal(result["confusion"], [[1, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_nothing_found_and_nothing_there():
    rates = report([sample([A], [1])], [found([], [], [])])["classes"]
    assert math.isnan(rates["cat"]["precision"]) and rates["cat"]["recall"] == 0.0 and rates["cat"]["f1"] == 0.0
    assert all(math.isnan(rates["dog"][key]) for key in ("precision", "recall", "f1"))


def test_unknown_kind_is_rejected():
    with pytest.raises(ValueError, match="keypoints"):
        report([], [], kind="keypoints")


def test_rows_and_columns_sum_to_objects_and_detections():
    rng = np.random.default_rng(0)
    samples, predictions = [], []
    for _ in range(20):
        corners = rng.integers(0, 40, (6, 2))
        boxes = [(int(x), int(y), int(x) + 16, int(y) + 16) for x, y in corners]
        samples.append(sample(boxes[:4], rng.integers(1, 3, 4)))
        predictions.append(found(boxes[1:], rng.integers(1, 3, 5), np.sort(rng.random(5))[::-1]))
    confusion = report(samples, predictions, score_threshold=0.0)["confusion"]
    objects = np.bincount(np.concatenate([s["labels"] for s in samples]), minlength=3)[1:]
    detections = np.bincount(np.concatenate([a["labels"] for a in predictions]), minlength=3)[1:]
    np.testing.assert_array_equal(confusion.sum(axis=1)[:2], objects)
    np.testing.assert_array_equal(confusion.sum(axis=0)[:2], detections)
    assert confusion[2, 2] == 0


def test_tables_line_up_and_show_every_figure():
    scores = evaluation.coco_scores(FakeModel([found([A], [1], [0.9])]), Reader([sample([A], [1])]))
    lines = evaluation.format_scores(scores).splitlines()
    assert lines[0].split() == ["bbox", "segm"]
    assert lines[1].split() == ["AP", "1.000", "1.000"]
    assert "APl" in lines[6] and lines[6].split() == ["APl", "-", "-"]
    by_class = [line.split() for line in lines[14:]]
    assert by_class[0][2:] == [
        word for kind in ("bbox", "segm") for figure in ("AP", "AP50", "AR100") for word in (kind, figure)
    ]
    assert by_class[1:] == [["cat", *["1.000"] * 6], ["dog", *["-"] * 6]]
    assert len({len(line) for line in lines[:13]}) == 1


def test_report_table():
    text = evaluation.format_report(report([sample([A, B], [1, 1])], [found([A, C], [1, 1], [0.9, 0.8])]))
    rows = [line.split() for line in text.splitlines()]
    assert rows[1] == ["cat", "0.500", "0.500", "0.500", "1", "1", "1"]
    assert rows[2] == ["dog", "-", "-", "-", "0", "0", "0"]
    assert rows[-3:] == [["cat", "1", "0", "1"], ["dog", "0", "0", "0"], ["background", "1", "0", "0"]]


def test_best_threshold_is_where_f1_is_highest():
    """One object, found with 0.8; a false positive of 0.6: F1 is 1 from 0.65 to 0.8, 2/3 below, 0 above."""
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 1:5, 1:5] = True
    box = np.array([[1, 1, 5, 5]], "float32")
    sample = {"image": np.zeros((8, 8, 3), np.uint8), "boxes": box, "labels": np.array([1]), "masks": mask}
    sample |= {"crowd": np.zeros(1, bool), "image_id": 0, "source": "memory"}

    class Reader(list):
        class_names = ("thing",)

    class Model:
        num_classes = 1

        def detect(self, images, score_threshold, max_detections):
            found = {
                "boxes": np.array([[1, 1, 5, 5], [5, 5, 8, 8]], "float32"),
                "labels": np.array([1, 1]),
                "scores": np.array([0.8, 0.6], "float32"),
                "masks": np.concatenate([mask, ~mask]),
            }
            keep = found["scores"] > score_threshold
            return [{name: values[keep] for name, values in found.items()} for _ in images]

    for kind in ("bbox", "segm"):
        assert evaluation.best_threshold(Model(), Reader([sample]), kind=kind) == 0.6
    assert evaluation.best_threshold(Model(), Reader([sample]), candidates=(0.9, 0.5)) == 0.5
