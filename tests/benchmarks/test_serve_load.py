"""The measurements of the service: the load for seconds instead of minutes, and batches."""

import json

import keras
import pytest

from keras_maskrcnn import MaskRCNN


def tiny(folder):
    """The path of a model with random weights."""
    keras.utils.set_random_seed(3)
    small = {"fpn_channels": 16, "box_stage": {"width": 16}, "mask_stage": {"width": 8, "depth": 1}}
    backbone, proposals = {"name": "resnet10", "width": 8, "norm": "group"}, {"pre_nms": 50, "post_nms": 20}
    path = folder / "tiny.keras"
    MaskRCNN(2, backbone, image_size=(64, 64), proposals=proposals, **small).save(path)
    return path


@pytest.mark.slow
def test_a_load_beyond_the_capacity_gives_429_and_no_other_error(run_here, tmp_path):
    report = tmp_path / "report.json"
    words = ["--model", tiny(tmp_path), "--seconds", "20", "--warm-up", "5", "--queue", "8", "--output", report]
    done = run_here("serve_load", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["errors"] == 0 and found["exit_code"] == 0
    assert found["answers"]["200"] > 0 and found["answers"]["429"] > 0
    assert found["p50"] <= found["p99"] <= found["bound"]
    assert found["mb"]["end"] < 1.2 * found["mb"]["start"]


def test_batches_of_the_service_are_timed(run_here, tmp_path):
    report = tmp_path / "report.json"
    words = ["--model", tiny(tmp_path), "--sizes", "32", "--batch", "2", "--rounds", "1", "--output", report]
    done = run_here("serve_batch", *words)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(report.read_text())["sizes"]
    assert row["size"] == 32 and set(row["ms"]) == {"batch 1", "batch 2"}
    assert row["ratio"]["median"] == pytest.approx(row["ms"]["batch 1"] / row["ms"]["batch 2"], rel=0.1)
