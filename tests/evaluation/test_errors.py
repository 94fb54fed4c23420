"""Error types of TIDE: each alone, worked by hand; agreement with the authors' program and with pycocotools."""

import math
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_maskrcnn import evaluation
from keras_maskrcnn.evaluation.errors import ERRORS, image_errors

A, B, FAR = (0, 0, 20, 20), (40, 40, 60, 60), (70, 70, 90, 90)
PART = (0, 0, 20, 8)  # IoU 0.4 with A
CAT, DOG = 1, 2
HALF = 51 / 101  # AP where the first of two objects is found: 51 of COCO's 101 recalls

# name: objects, detections, AP before and after
ALONE = {
    "classification": ([(CAT, A)], [(DOG, A, 0.9)], 0, 1),
    "localisation": ([(CAT, A)], [(CAT, PART, 0.9)], 0, 1),
    # The AP of cats is 1. The error is the first of two dogs: AP 0.5.
    "both": ([(CAT, A), (DOG, B)], [(CAT, A, 0.7), (DOG, B, 0.8), (DOG, PART, 0.9)], 0.75, 1),
    # Precision 1 up to recall 0.5, then 2/3.
    "duplicate": ([(CAT, A), (CAT, B)], [(CAT, A, 0.9), (CAT, A, 0.8), (CAT, B, 0.7)], HALF + (1 - HALF) * 2 / 3, 1),
    "background": ([(CAT, A)], [(CAT, FAR, 0.9), (CAT, A, 0.8)], 0.5, 1),
    "missed": ([(CAT, A), (CAT, B)], [(CAT, A, 0.9)], HALF, 1),
}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("name", ERRORS)
def test_each_type_alone(collected, name, kind):
    objects, detections, before, after = ALONE[name]
    result = evaluation.tide(collected((objects, detections)), kind)
    assert result["AP"] == pytest.approx(before)
    for other, entry in result["errors"].items():
        assert entry["count"] == (other == name), other
        assert entry["dAP"] == pytest.approx(after - before if other == name else 0), other


def test_false_positives_and_false_negatives(collected):
    result = evaluation.tide(collected(([(CAT, A), (CAT, B)], [(CAT, FAR, 0.9), (CAT, A, 0.8)])))
    before = HALF / 2
    assert result["AP"] == pytest.approx(before)
    assert result["false_positives"] == {"count": 1, "dAP": pytest.approx(HALF - before)}
    assert result["false_negatives"] == {"count": 1, "dAP": pytest.approx(0.5 - before)}


def test_one_error_per_object_is_repaired(collected):
    """Of two badly placed detections of one object, the one of higher score becomes right, the other is removed."""
    found = collected(([(CAT, A)], [(CAT, PART, 0.6), (CAT, (0, 12, 20, 20), 0.7)]))
    errors = image_errors(found.images("segm")[0])
    assert errors.repaired.tolist() == [True, False] and not errors.missed.any()
    assert evaluation.tide(found)["errors"]["localisation"] == {"count": 2, "dAP": pytest.approx(1)}


def test_an_error_on_a_matched_object_is_removed(collected):
    result = evaluation.tide(collected(([(CAT, A)], [(CAT, PART, 0.9), (CAT, A, 0.8)])))
    assert (result["AP"], result["errors"]["localisation"]["dAP"]) == (pytest.approx(0.5), pytest.approx(0.5))


def test_errors_of_two_types_on_one_object_compete(collected):
    """The badly placed cat has the higher score, so the dog does not become a cat when classes are repaired."""
    result = evaluation.tide(collected(([(CAT, A)], [(CAT, PART, 0.9), (DOG, A, 0.8)])))
    assert result["errors"]["localisation"]["dAP"] == pytest.approx(1)
    assert result["errors"]["classification"] == {"count": 1, "dAP": pytest.approx(0)}


def test_localisation_comes_before_classification(collected):
    objects = [(CAT, A), (DOG, (0, 0, 20, 9))]
    [image] = collected((objects, [(CAT, PART, 0.9)])).images("segm")
    assert image_errors(image).kinds.tolist() == ["localisation"]
    assert image_errors(image, foreground=0.3).kinds.tolist() == ["right"]


def test_thresholds(collected):
    found = collected(([(CAT, A)], [(CAT, (0, 0, 20, 3), 0.9)]))  # IoU 0.15
    assert evaluation.tide(found)["errors"]["localisation"]["count"] == 1
    assert evaluation.tide(found, background=0.2)["errors"]["background"]["count"] == 1
    with pytest.raises(ValueError, match=r"background=0.5 must be below foreground=0.5"):
        evaluation.tide(found, background=0.5)


def test_detections_on_crowds_are_no_errors(collected):
    found = collected(([(CAT, A), (CAT, (30, 30, 95, 95), "crowd")], [(CAT, FAR, 0.9), (CAT, A, 0.8)]))
    result = evaluation.tide(found)
    assert result["AP"] == pytest.approx(1) and result["false_positives"]["count"] == 0
    dog = collected(([(CAT, A), (CAT, (30, 30, 95, 95), "crowd")], [(DOG, FAR, 0.9), (CAT, A, 0.8)]))
    assert evaluation.tide(dog)["errors"]["background"]["count"] == 1


def test_no_detections(collected):
    result = evaluation.tide(collected(([(CAT, A), (DOG, B)], []), ([], [])))
    assert result["AP"] == 0
    assert result["errors"]["missed"] == {"count": 2, "dAP": pytest.approx(1)}
    assert all(result["errors"][name] == {"count": 0, "dAP": 0} for name in ERRORS[:-1])


def test_no_objects(collected):
    result = evaluation.tide(collected(([], [(CAT, A, 0.9)])))
    assert math.isnan(result["AP"]) and math.isnan(result["errors"]["background"]["dAP"])
    assert result["errors"]["background"]["count"] == result["false_positives"]["count"] == 1


def test_as_the_authors_program():
    """golden/make_tide.py ran tidecv on these boxes."""
    golden = np.load(pathlib.Path(__file__).parents[1] / "golden" / "tide.npz")
    images = np.unique(np.concatenate([golden["objects"][:, 0], golden["detections"][:, 0]]))
    truth = {
        "images": [{"id": int(image), "height": 200, "width": 200, "file_name": ""} for image in images],
        "categories": [{"id": label, "name": str(label)} for label in (1, 2, 3, 4)],
        "annotations": [
            {"id": number, "image_id": int(image), "category_id": int(label), "bbox": box, "area": 1, "iscrowd": 0}
            for number, (image, label, *box) in enumerate(golden["objects"].tolist(), start=1)
        ],
    }
    found = [
        {"image_id": int(image), "category_id": int(label), "bbox": box, "score": score}
        for image, label, *box, score in golden["detections"].tolist()
    ]
    result = evaluation.tide(evaluation.Collected(truth, found, ("bbox",)))
    entries = [*(result["errors"][name] for name in ERRORS), result["false_positives"], result["false_negatives"]]
    assert result["AP"] == pytest.approx(float(golden["ap"]), abs=1e-9)
    np.testing.assert_array_equal([entry["count"] for entry in entries[:6]], golden["counts"])
    np.testing.assert_allclose([entry["dAP"] for entry in entries], golden["gains"], atol=1e-9)
    assert min(golden["counts"]) > 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), crowds=st.booleans(), kind=st.sampled_from(["bbox", "segm"]))
def test_ap_is_that_of_pycocotools_and_counts_add_up(collected, random_images, seed, crowds, kind):
    found = collected(*random_images(seed, crowds=crowds))
    result = evaluation.tide(found, kind)
    official = evaluation.score_detections(found.ground_truth, found.detections, (kind,))[f"{kind}_AP50"]
    assert result["AP"] == pytest.approx(official, abs=1e-12, nan_ok=True)
    counts = [result["errors"][name]["count"] for name in ERRORS]
    assert sum(counts[:-1]) == result["false_positives"]["count"]
    assert counts[-1] <= result["false_negatives"]["count"]
    assert all(math.isnan(entry["dAP"]) or entry["dAP"] > -1e-12 for entry in result["errors"].values())
