"""The threshold of the highest F1: by hand, and against all thresholds one by one."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_maskrcnn import evaluation
from keras_maskrcnn.evaluation.report import rates_at

A, B, FAR = (0, 0, 20, 20), (40, 40, 60, 60), (70, 70, 90, 90)


def test_threshold_lies_between_scores(collected):
    """A cat found with 0.8, background with 0.6; a dog found with 0.5 below background with 0.7."""
    objects = [(1, A), (2, B)]
    found = collected((objects, [(1, A, 0.8), (1, FAR, 0.6), (2, FAR, 0.75), (2, B, 0.5)]))
    best = evaluation.best_f1(found)
    assert best["classes"]["cat"]["threshold"] == pytest.approx(0.7) and best["classes"]["cat"]["f1"] == 1
    dog = best["classes"]["dog"]
    assert dog["threshold"] == pytest.approx(0.25) and dog["f1"] == pytest.approx(2 / 3)
    assert (dog["precision"], dog["recall"], dog["false_positives"]) == (0.5, 1.0, 1)
    # 2·1 / (1 + 2) above 0.775 equals 2·2 / (4 + 2) of all: the higher threshold is taken.
    assert best["overall"]["threshold"] == pytest.approx(0.775) and best["overall"]["f1"] == pytest.approx(2 / 3)


def test_without_right_detections(collected):
    best = evaluation.best_f1(collected(([(1, A)], [(1, FAR, 0.9)])))
    assert math.isnan(best["overall"]["threshold"]) and best["overall"]["f1"] == 0
    assert math.isnan(best["classes"]["dog"]["f1"])


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_no_threshold_is_better(collected, random_images, seed):
    """Also with equal scores: those of `random_images` have one decimal."""
    found = collected(*random_images(seed, count=4, crowds=True))
    best = evaluation.best_f1(found)
    every = [rates_at(found, threshold) for threshold in {0.0, *(row["score"] for row in found.detections)}]
    for name in (None, *found.class_names):
        at, chosen = [_of(rates, name)["f1"] for rates in every], _of(best, name)
        if math.isnan(chosen["threshold"]):
            assert np.nan_to_num(at).max() == 0
        else:
            assert chosen["f1"] == pytest.approx(np.nanmax(at))
            again = _of(rates_at(found, chosen["threshold"]), name)
            assert {key: chosen[key] for key in again} == again


def _of(result, name):
    return result["classes"][name] if name else result["overall"]
