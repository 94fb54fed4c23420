"""Targets and decoding of heat maps, against torchvision's arrays and against the whole enlarged map."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.ops import keypoints
from keras_maskrcnn.ops.maps import enlarge

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "keypoints.npz"


@pytest.fixture(scope="module")
def golden():
    """torchvision's inputs and answers, by `golden/make_keypoints.py`."""
    with np.load(GOLDEN) as file:
        arrays = dict(file)
    return {**arrays, "maps": arrays["maps"].astype("float32") / 16}


def test_targets_are_torchvisions(golden):
    cell, valid = keypoints.heatmap_targets(golden["points"], golden["rois"], 56)
    np.testing.assert_array_equal(valid, golden["valid"])
    np.testing.assert_array_equal(cell, golden["cell"])
    assert 10 < golden["valid"].sum() < golden["valid"].size - 10
    assert golden["valid"][0, :2].all()  # on the corners of the region


def test_targets_by_hand():
    """A region of 20×10 pixels at (10, 30) with 4×4 cells of 5×2.5 pixels."""
    points = [[10, 30, 2], [14.9, 32.4, 1], [15, 32.5, 2], [30, 40, 2], [30.1, 35, 2], [9.9, 35, 2], [20, 35, 0]]
    cell, valid = keypoints.heatmap_targets(np.float32([points]), np.float32([[10, 30, 30, 40]]), 4)
    assert np.asarray(valid).tolist() == [[True, True, True, True, False, False, False]]
    assert np.asarray(cell).tolist() == [[0, 0, 5, 15, 0, 0, 0]]


@pytest.mark.parametrize("roi", [[5, 5, 5, 5], [5, 5, 5, 9], [9, 9, 5, 5]])
def test_regions_without_area_have_no_targets_that_are_not_finite(roi):
    cell, valid = keypoints.heatmap_targets(np.float32([[[5, 5, 2], [7, 7, 2]]]), np.float32([roi]), 4)
    assert ((np.asarray(cell) >= 0) & (np.asarray(cell) < 16)).all() and np.asarray(valid).dtype == bool


def test_enlarged_maps_by_hand_and_as_torchs(golden):
    row = enlarge(np.array([0, 4, 8], "float32").reshape(1, 1, 3, 1), 2)
    np.testing.assert_allclose(row[0, :, :, 0], [[0, 1, 3, 5, 7, 8]] * 2)
    found = enlarge(golden["maps"], 2)
    np.testing.assert_allclose(found[0, ..., 0], golden["enlarged"], atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_keypoints_are_torchvisions(golden, compiled):
    """Within a tenth of a pixel, so the same pixel; also under XLA."""
    decode = tf.function(lambda maps, rois: keypoints.decode(enlarge(maps, 2), rois), jit_compile=compiled)
    places, scores = decode(golden["maps"], golden["rois"])
    np.testing.assert_allclose(places, golden["keypoints"][..., :2], atol=0.1)
    np.testing.assert_allclose(scores, golden["scores"], atol=1e-5)


def whole(maps, roi):
    """x, y and value of the largest pixel of a map enlarged to a region by the cubic kernel's definition."""

    def weights(count, cells):
        position = (np.arange(count) + 0.5) * cells / count - 0.5
        result = np.zeros((count, cells))
        for tap in range(-1, 3):
            cell = np.floor(position) + tap
            d, a = np.abs(position - cell), -0.75
            near, far = ((a + 2) * d - (a + 3)) * d**2 + 1, a * (((d - 5) * d + 8) * d - 4)
            np.add.at(result, (np.arange(count), np.clip(cell, 0, cells - 1).astype(int)), np.where(d <= 1, near, far))
        return result

    side = np.maximum(roi[2:] - roi[:2], 1)
    width, height = np.ceil(side).astype(int)
    values = np.einsum("ya,abk,xb->kyx", weights(height, len(maps)), maps, weights(width, len(maps)), optimize=True)
    best = values.reshape(len(values), -1).argmax(axis=1)
    places = (np.stack([best % width, best // width], 1) + 0.5) * side / (width, height) + roi[:2]
    return places, values.max(axis=(1, 2))


def test_search_finds_the_largest_pixel_of_maps_with_many_peaks():
    """Noise has hundreds of peaks of similar height, trained maps have one or two."""
    rng = np.random.default_rng(5)
    maps = np.asarray(enlarge(rng.normal(size=(24, 28, 28, 5)).astype("float32"), 2))
    corner, side = rng.uniform(0, 100, (24, 2)), np.exp(rng.uniform(np.log(20), np.log(1300), (24, 2)))
    rois = np.concatenate([corner, corner + side], axis=1).astype("float32")
    places, scores = keypoints.decode(maps, rois)
    wanted = [whole(one, roi) for one, roi in zip(maps, rois, strict=True)]
    np.testing.assert_allclose(places, [place for place, _ in wanted], atol=0.1)
    np.testing.assert_allclose(scores, [score for _, score in wanted], atol=1e-4)


def test_a_region_larger_than_the_search_is_exact_up_to_a_pixel():
    maps = np.zeros((1, 56, 56, 1), "float32")
    maps[0, 20, 30, 0] = 1  # the peak is in the middle of this cell
    places, _ = keypoints.decode(maps, np.float32([[0, 0, 4000, 3000]]))
    np.testing.assert_allclose(places[0, 0], [30.5 / 56 * 4000, 20.5 / 56 * 3000], atol=3)


IN_JAX = """
import sys
import jax, numpy as np
from keras_maskrcnn.ops import keypoints
from keras_maskrcnn.ops.maps import enlarge
golden = np.load(sys.argv[1])
decode = jax.jit(lambda maps, rois: keypoints.decode(enlarge(maps, 2), rois))
places, scores = decode(golden["maps"].astype("float32") / 16, golden["rois"])
assert np.abs(places - golden["keypoints"][..., :2]).max() < 0.1
assert np.abs(scores - golden["scores"]).max() < 1e-5
cell, valid = keypoints.heatmap_targets(golden["points"], golden["rois"], 56)
assert (np.asarray(cell) == golden["cell"]).all() and (np.asarray(valid) == golden["valid"]).all()
assert "tensorflow" not in sys.modules
"""


def test_torchvision_on_jax():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(pathlib.Path(__file__).parents[2])
    command = [sys.executable, "-c", IN_JAX, str(GOLDEN)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
