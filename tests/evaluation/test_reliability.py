"""Calibration worked by hand."""

import numpy as np
import pytest

from keras_maskrcnn import evaluation

A, B, FAR = (0, 0, 20, 20), (40, 40, 60, 60), (70, 70, 90, 90)


def test_bins_and_expected_error(collected):
    """Two of 0.92 and 0.94, one right; one of 0.3, right; one at the threshold and one below are left out."""
    objects = [(1, A), (1, B)]
    scores = [(1, A, 0.94), (1, FAR, 0.92), (1, B, 0.3), (1, FAR, 0.05), (1, FAR, 0.01)]
    result = evaluation.calibration(collected((objects, scores)))
    np.testing.assert_array_equal(result["counts"], [0, 0, 0, 1, 0, 0, 0, 0, 0, 2])
    assert result["precisions"][3] == 1 and result["precisions"][9] == 0.5
    assert result["scores"][9] == pytest.approx(0.93) and np.isnan(result["scores"][0])
    assert result["expected_calibration_error"] == pytest.approx((0.7 * 1 + 0.43 * 2) / 3)
    assert evaluation.calibration(collected((objects, scores)), score_threshold=0)["counts"].sum() == 5


def test_a_score_of_one_is_in_the_last_bin(collected):
    result = evaluation.calibration(collected(([(1, A)], [(1, A, 1.0)])), bins=4)
    np.testing.assert_array_equal(result["counts"], [0, 0, 0, 1])
    assert result["expected_calibration_error"] == 0


def test_a_calibrated_detector_has_no_error(collected):
    """Of four detections with 0.75 on four images three are right."""
    images = [([(1, A)], [(1, A if index else FAR, 0.75)]) for index in range(4)]
    assert evaluation.calibration(collected(*images))["expected_calibration_error"] == pytest.approx(0)


def test_overlap_decides_what_is_right(collected):
    found = collected(([(1, A)], [(1, (0, 0, 20, 14), 0.9)]))  # IoU 0.7
    assert evaluation.calibration(found)["precisions"][-1] == 1
    assert evaluation.calibration(found, iou=0.8)["precisions"][-1] == 0


def test_without_detections(collected):
    result = evaluation.calibration(collected(([(1, A)], [])))
    assert np.isnan(result["expected_calibration_error"]) and not result["counts"].any()
    with pytest.raises(ValueError, match="bins=0 must be 1 or more"):
        evaluation.calibration(collected(([], [])), bins=0)
