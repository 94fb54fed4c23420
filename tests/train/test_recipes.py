"""The recipes as a user runs them: help, a tiny run to the end, bad input in one line."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
TINY = ("--backbone", "resnet10", "--width", 8)


def run(recipe, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "train" / f"{recipe}.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("recipe", ["shapes", "penn_fudan", "coco"])
def test_help_shows_an_example(recipe, run_here):
    answer = run_here(recipe, "--help")
    assert answer.returncode == 0
    assert f"python train/{recipe}.py" in answer.stdout


@pytest.fixture(scope="module")
def shapes_run(tmp_path_factory):
    """A run of a few steps, and what it printed."""
    output = tmp_path_factory.mktemp("run") / "shapes"
    answer = run("shapes", "--output", output, "--steps", 6, "--epochs", 2, "--val-images", 6, *TINY)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return output, answer.stdout


def test_run_leaves_everything_that_its_summary_names(shapes_run):
    output, printed = shapes_run
    summary = json.loads((output / "summary.json").read_text())
    assert summary["steps"] == 6
    for name in ("keras_file", "saved_model", "tensorboard", "pictures", "curves"):
        assert pathlib.Path(summary[name]).exists(), name
        assert summary[name] in printed
    assert {"bbox_AP", "segm_AP", "segm_AP50", "training_seconds", "images_per_second", "versions"} <= set(summary)
    assert len((output / "history.csv").read_text().splitlines()) == 3
    pictures = list((output / "pictures").glob("*.png"))
    assert len(pictures) == 6
    assert all(np.asarray(Image.open(picture)).std() > 5 for picture in pictures)
    assert "python -m keras_maskrcnn predict" in printed


def test_command_of_the_summary_works(shapes_run, tmp_path):
    from keras_maskrcnn.cli import main

    output, _ = shapes_run
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype("uint8")).save(tmp_path / "p.png")
    model = json.loads((output / "summary.json").read_text())["keras_file"]
    assert main(["predict", "--model", model, "--output", str(tmp_path / "out"), str(tmp_path / "p.png")]) in (0, None)
    assert list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("recipe", "arguments", "reason"),
    [
        ("penn_fudan", ["--data", "no/such/folder"], "no/such/folder"),
        ("coco", ["--data", "no/such/folder"], "no/such/folder"),
        ("coco", [], "give --data"),
        ("shapes", ["--image-size", "100"], "multiples of 32"),
        ("shapes", ["--backbone", "resnet19"], "resnet19"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(recipe, arguments, reason, tmp_path, run_here):
    answer = run_here(recipe, "--output", tmp_path / "run", *arguments)
    assert answer.returncode == 2
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert reason in errors[0]
    assert "Traceback" not in answer.stderr


def test_coco_recipe_on_a_real_file(kmr_data, tmp_path):
    fruits = kmr_data / "fruits_nuts"
    answer = run(
        "coco", "--annotations", fruits / "trainval.json", "--images", fruits / "images", "--output", tmp_path / "run",
        *TINY, "--steps", 2, "--epochs", 1, "--batch-size", 2, "--image-size", 96, 128,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["train_images"] == 12
    assert summary["val_images"] == 2
    assert len(summary["per_class"]) == 3
