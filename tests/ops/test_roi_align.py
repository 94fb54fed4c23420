"""Taps of samples: hand-computed values."""

import numpy as np
import pytest
from keras import ops

from keras_maskrcnn.ops import roi_align


def taps(start, length, size, bins=1, samples=2):
    values = (np.array([v], t) for v, t in ((start, "float32"), (length, "float32"), (size, "int32")))
    pixels, weights = roi_align.axis_taps(*values, bins, samples)
    return ops.convert_to_numpy(pixels)[0, :, :].tolist(), ops.convert_to_numpy(weights)[0]


def test_taps_inside():
    # A box from 1 to 3 with one bin: samples at 1.5 and 2.5, each half of two neighbours.
    pixels, weights = taps(1, 2, 10)
    assert pixels == [[1, 2, 2, 3]]
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0.5, 0.5]])


def test_taps_at_the_border():
    # Samples at -1 and at 3 = size, the outermost positions inside (pixels 0 and 2); beyond them all weights are 0.
    pixels, weights = taps(-3, 8, 3)
    assert pixels == [[0, 2, 1, 2]]
    np.testing.assert_allclose(weights, [[1, 1, 0, 0]])
    _, weights = taps(-3.02, 8.04, 3)
    assert not weights.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_taps_of_invalid_boxes_are_zero_and_in_range(bad):
    pixels, weights = taps(bad, 1, 5)
    assert not weights.any()
    assert all(0 <= p < 5 for p in pixels[0])
