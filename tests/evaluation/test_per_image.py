"""Scores and words per image, scores by size, and drawings of errors."""

import math

import numpy as np
import pytest

from keras_maskrcnn import evaluation
from keras_maskrcnn.evaluation.drawn import TINTS, draw_errors, object_kinds
from keras_maskrcnn.evaluation.errors import image_errors
from keras_maskrcnn.evaluation.per_image import per_image, worst
from keras_maskrcnn.evaluation.sizes import size_scores

A, B, FAR = (0, 0, 20, 20), (40, 40, 60, 60), (70, 70, 90, 90)
CAT, DOG = 1, 2


def test_every_error_in_words(collected):
    objects = [(CAT, A), (CAT, B), (DOG, FAR), (DOG, (0, 70, 20, 76)), (CAT, (40, 0, 60, 20))]
    detections = [
        (CAT, A, 0.95),
        (CAT, A, 0.9),  # duplicate
        (CAT, (40, 40, 60, 48), 0.85),  # IoU 0.4
        (CAT, FAR, 0.8),  # a dog
        (CAT, (30, 80, 50, 95), 0.75),  # background
        (DOG, (40, 0, 60, 8), 0.7),  # a cat, IoU 0.4
        (DOG, (0, 70, 20, 76), 0.4),  # below the threshold
    ]
    [row] = per_image(collected((objects, detections)))
    assert row["wrong"] == (
        "2 missed: dog (area 120 px), cat (area 400 px); "
        "1 wrong class: cat for dog (score 0.80); "
        "1 badly placed: cat (score 0.85, IoU 0.40); "
        "1 wrong class and place: dog for cat (score 0.70, IoU 0.40); "
        "1 duplicate: cat (score 0.90); "
        "1 on background: cat (score 0.75)"
    )
    assert row["errors"] == dict.fromkeys(row["errors"], 1) | {"missed": 2}
    assert (row["true_positives"], row["false_positives"], row["false_negatives"]) == (1, 5, 4)
    assert row["image"] == "1.png" and row["f1"] == pytest.approx(2 / 11)


def test_many_errors_are_not_all_named(collected):
    boxes = [(10 * index, 0, 10 * index + 8, 8) for index in range(7)]
    [row] = per_image(collected(([(CAT, box) for box in boxes], [])))
    assert row["wrong"] == "7 missed: " + "cat (area 64 px), " * 5 + "…"


def test_worst_images_first(collected):
    right, wrong = ([(CAT, A)], [(CAT, A, 0.9)]), ([(CAT, A)], [])
    mostly = ([(CAT, A), (CAT, B)], [(CAT, A, 0.9)])
    empty = ([], [])
    both_wrong = ([(CAT, A)], [(CAT, FAR, 0.9)])
    rows = per_image(collected(right, mostly, wrong, empty, both_wrong))
    assert [row["image_id"] for row in worst(rows, 20)] == [5, 3, 2]
    assert [row["image_id"] for row in worst(rows, 1)] == [5]
    assert math.isnan(rows[3]["f1"]) and rows[3]["wrong"] == rows[0]["wrong"] == ""


def test_sizes(collected):
    small, medium, large = (0, 0, 10, 10), (0, 0, 40, 40), (0, 0, 98, 98)
    images = [
        ([(CAT, small), (CAT, B)], [(CAT, small, 0.9)]),
        ([(CAT, medium)], [(CAT, medium, 0.9), (CAT, FAR, 0.8)]),
        ([(CAT, large, "crowd")], [(CAT, FAR, 0.9)]),
    ]
    found = collected(*images)
    scores = evaluation.score_detections(found.ground_truth, found.detections)
    result = size_scores(found, scores)
    counts = {
        size: (row["objects"], row["recall"], row["detections"], row["precision"]) for size, row in result.items()
    }
    assert counts["small"] == (2, 0.5, 2, 0.5) and counts["medium"] == (1, 1.0, 1, 1.0)
    assert counts["large"][0] == counts["large"][2] == 0 and math.isnan(counts["large"][1])
    assert result["medium"]["AP"] == scores["segm_APm"] == pytest.approx(1)
    assert result["small"]["AR"] == scores["segm_ARs"] == pytest.approx(0.5)


def test_colours_of_drawn_errors(collected):
    objects, detections = [(CAT, A), (CAT, B), (CAT, FAR, "crowd")], [(CAT, A, 0.9), (CAT, (40, 0, 60, 20), 0.8)]
    [image] = collected((objects, detections)).images("segm")
    errors = image_errors(image)
    assert object_kinds(errors)[:2] == ["right", "missed"]
    drawing = draw_errors(np.zeros((100, 100, 3), np.uint8), image, errors, ["cat"])
    left, right = drawing[:, : drawing.shape[1] // 2], drawing[:, drawing.shape[1] // 2 :]

    def has(pixels, kind):
        return (pixels == TINTS[kind]).all(axis=-1).any()

    for kind, sides in {"right": (True, True), "missed": (True, False), "background": (False, True)}.items():
        # The legend below the images begins on the left.
        assert (has(left[:500], kind), has(right[:500], kind)) == sides, kind


def test_an_object_has_the_colour_of_the_error_about_it(collected):
    objects = [(CAT, A), (DOG, B)]
    detections = [(CAT, (0, 0, 20, 8), 0.9), (CAT, B, 0.8)]
    [image] = collected((objects, detections)).images("segm")
    assert object_kinds(image_errors(image)) == ["localisation", "classification"]
