"""The load test of the service, for seconds instead of minutes."""

import json

import keras
import pytest

from keras_maskrcnn import MaskRCNN


@pytest.mark.slow
def test_a_load_beyond_the_capacity_gives_429_and_no_other_error(run_here, tmp_path):
    keras.utils.set_random_seed(3)
    small = {"fpn_channels": 16, "box_stage": {"width": 16}, "mask_stage": {"width": 8, "depth": 1}}
    proposals = {"pre_nms": 50, "post_nms": 20}
    MaskRCNN(
        2, {"name": "resnet10", "width": 8, "norm": "group"}, image_size=(64, 64), proposals=proposals, **small
    ).save(tmp_path / "tiny.keras")
    report = tmp_path / "report.json"
    words = [
        "--model",
        tmp_path / "tiny.keras",
        "--seconds",
        "20",
        "--warm-up",
        "5",
        "--queue",
        "8",
        "--output",
        report,
    ]
    done = run_here("serve_load", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["errors"] == 0 and found["exit_code"] == 0
    assert found["answers"]["200"] > 0 and found["answers"]["429"] > 0
    assert found["p50"] <= found["p99"] <= found["bound"]
    assert found["mb"]["end"] < 1.2 * found["mb"]["start"]
