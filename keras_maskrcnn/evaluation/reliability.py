"""Calibration: whether detections of score s are right in a share s of the cases."""

import numpy as np

from keras_maskrcnn.evaluation.ranked import ranked


def calibration(found, kind=None, iou=0.5, bins=10, score_threshold=0.05):
    """Compares scores with precision in bins of equal width.

    The expected calibration error (C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural
    Networks", ICML 2017, equation 3) is the mean of |precision - mean score| over the bins, weighted by their numbers
    of detections. For detectors precision takes the place of accuracy (F. Küppers, J. Kronenberger, A. Shantia,
    A. Haselhoff, "Multivariate Confidence Calibration for Object Detection", CVPR Workshops 2020).

    Args:
        found: `Collected`.
        kind: "segm" or "bbox"; None takes masks if there are any.
        iou: minimum IoU at which a detection is right.
        bins: number of bins between 0 and 1.
        score_threshold: detections of this score or less are left out: hundreds per image with scores near 0 would
            hide all others.

    Returns:
        dict: `edges` float64 [bins + 1]; per bin `counts` int64, `scores` (mean) and `precisions`, float64, NaN in
        empty bins; `expected_calibration_error`, NaN without detections.

    Raises:
        ValueError: `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins={bins} must be 1 or more")
    rows = ranked(found, kind, iou)
    kept = rows.scores > score_threshold
    scores, right = rows.scores[kept], rows.right[kept]
    edges = np.linspace(0, 1, bins + 1)
    # Edges of the precision of scores: 0.9 is in the bin that begins with 0.9.
    place = np.clip(np.digitize(scores, edges.astype(scores.dtype)) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, values, minlength=bins) for values in (scores, right))
    means, precisions = (np.where(counts, total / np.maximum(counts, 1), np.nan) for total in sums)
    error = np.nansum(counts * np.abs(precisions - means)) / counts.sum() if counts.any() else np.nan
    return {
        "edges": edges,
        "counts": counts,
        "scores": means,
        "precisions": precisions,
        "expected_calibration_error": float(error),
    }
