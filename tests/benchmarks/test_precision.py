import json

import keras
import numpy as np
import precision
import pytest
import scenes


def found(boxes, labels, scores):
    return {
        "boxes": np.float32(boxes).reshape(-1, 4),
        "labels": np.int32(labels),
        "scores": np.float32(scores),
    }


def test_partners_share_class_and_place():
    first = [found([[0, 0, 10, 10], [20, 20, 40, 40]], [1, 2], [0.9, 0.8]), found([], [], [])]
    moved = [found([[20, 20, 40, 39], [0, 0, 10, 10]], [2, 1], [0.7, 0.88]), found([[0, 0, 5, 5]], [1], [0.6])]
    agreed = precision.agreement(first, moved)
    assert agreed == {"detections": 2, "partners": 2, "largest_score_difference": pytest.approx(0.1, abs=1e-6)}
    other_class = [found([[0, 0, 10, 10], [20, 20, 40, 30]], [3, 2], [0.9, 0.8]), found([], [], [])]
    assert precision.agreement(first, other_class)["partners"] == 0
    assert precision.agreement(first, [found([], [], [])] * 2)["partners"] == 0


def test_the_copy_computes_in_the_other_policy_with_the_same_weights():
    model = scenes.network(tiny=True, image_size=(64, 64))
    copy = precision.with_policy(model, "mixed_bfloat16")
    assert copy.backbone.layers[1].compute_dtype == "bfloat16"
    for mine, other in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(mine), keras.ops.convert_to_numpy(other))


@pytest.mark.slow
def test_photos_are_compared_and_the_figures_written(tmp_path, run_here, eager_functions, monkeypatch):
    from PIL import Image

    monkeypatch.setitem(scenes.TINY, "resize", {"shorter": 64, "longer": 96})
    Image.fromarray(scenes.scene(48, 64, 3)[0]).save(tmp_path / "a.png")
    output = tmp_path / "precision.json"
    done = run_here("precision", "--photos", tmp_path, "--tiny", "--score-threshold", "0.0", "--output", output)
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    assert content["pictures"] == 1 and content["score_threshold"] == 0
    assert content["agreement"]["detections"] > 0 and content["machine"]
