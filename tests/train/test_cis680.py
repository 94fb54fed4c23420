"""The whole assignment at a tiny scale, run as a command: every step of the report has content."""

import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
TINY = {"steps-a": 12, "steps-b": 12, "alternating-steps": 8, "transfer-steps": 2, "batch-size": 2, "width": 8}


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "train" / "cis680.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)


def test_help_shows_an_example(run_here):
    process = run_here("cis680", "--help")
    assert process.returncode == 0 and "python train/cis680.py all" in process.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder of a run of both parts, and the text of the page."""
    output = tmp_path_factory.mktemp("cis680")
    photo = output / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(photo)
    options = [f"--{name}={value}" for name, value in TINY.items()]
    process = run("all", "--output", output, "--photo", photo, "--test-images", 6, "--image-size", 96, 128, *options)
    assert process.returncode == 0, process.stderr[-3000:]
    return output, (output / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_step_has_content(report):
    _, html = report
    sections = re.findall(r'<section[^>]*id="step-(\d+)"', html)
    assert [int(number) for number in sections] == list(range(1, 19))
    for part in re.split(r"<section", html)[1:]:
        assert re.search(r"<(p|table|figure)\b", part)
    assert "http://" not in html and 'src="data:image' in html


@pytest.mark.slow
def test_images_are_not_blank(report):
    import base64

    _, html = report
    images = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    assert len(images) >= 25
    for image in images:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("L"), np.float32)
        assert min(pixels.shape) > 40 and pixels.std() > 4


@pytest.mark.slow
def test_curves_fall_and_the_summary_has_all_figures(report):
    output, _ = report
    summary = json.loads((output / "summary.json").read_text())
    first, last = summary["part-a"]["losses"]["total"]
    assert last < first
    first, last = summary["part-b"]["losses"]["loss"]
    assert last < first
    assert summary["part-a"]["receptive_field"]["size"] == 172
    assert set(summary["part-b"]["transfer"]) == {"new backbone", "trained, frozen", "trained, fine-tuned"}
    assert summary["part-b"]["transfer"]["trained, frozen"]["backbone_distance"] == 0
    assert len(summary["part-b"]["alternating"]["phases"]) == 4
    for name in ("part_a", "joint", "alternating"):
        assert (output / f"{name}.keras").stat().st_size > 10_000


def test_a_folder_without_the_four_files_is_one_line(tmp_path, run_here):
    (tmp_path / "data").mkdir()
    process = run_here("cis680", "part-a", "--data", tmp_path / "data", "--output", tmp_path / "run")
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert re.search(r"error: .*hw3_mycocodata_\w+\.(h5|npy): no such file", process.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "no/such/folder"), "no/such/folder"),
        (("--dataset", "coco"), "needs --data"),
        (("--image-size", "100", "100"), "--image-size 100 100 must be two multiples of 32"),
        (("--photo", "no_such.jpg"), "no_such.jpg"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, words, run_here):
    process = run_here("cis680", "all", "--output", tmp_path, *arguments)
    assert process.returncode == 2
    last = process.stderr.strip().splitlines()[-1]  # TensorFlow logs the machine before
    assert last.startswith("error: ") and words in last and "Traceback" not in process.stderr
