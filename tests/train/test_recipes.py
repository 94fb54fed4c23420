"""The recipes as a user runs them: help, a tiny run to the end, bad input in one line."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.training import recipe

ROOT = pathlib.Path(__file__).parents[2]
TINY = ("--backbone", "resnet10", "--width", 8)


@pytest.mark.parametrize("name", ["shapes", "penn_fudan", "coco", "stick_figures", "digits"])
def test_help_shows_an_example(name, run_here):
    answer = run_here(name, "--help")
    assert answer.returncode == 0
    assert f"python train/{name}.py" in answer.stdout


# Runs a program up to its import of TensorFlow, and prints what TensorFlow would find.
UP_TO_TENSORFLOW = """
import importlib.abc, os, runpy, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "tensorflow":
            print(os.environ.get("TF_CPU_ALLOCATOR_USE_BFC"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
sys.path.insert(0, sys.argv[2])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("given", [None, "false"])
@pytest.mark.parametrize("name", ["shapes", "penn_fudan", "coco", "nuclei", "cis680", "stick_figures", "digits"])
def test_tensorflow_keeps_its_memory_unless_told_otherwise(name, given):
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPU_ALLOCATOR_USE_BFC"}
    environment |= {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"} | (
        {"TF_CPU_ALLOCATOR_USE_BFC": given} if given else {}
    )
    command = [sys.executable, "-c", UP_TO_TENSORFLOW, str(ROOT / "train" / f"{name}.py"), str(ROOT / "train")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{given or 'true'}\n", done.stderr


@pytest.fixture(scope="module")
def shapes_run(tmp_path_factory, run_here):
    """A run of a few steps, and what it printed."""
    output = tmp_path_factory.mktemp("run") / "shapes"
    answer = run_here("shapes", "--output", output, "--steps", 6, "--epochs", 2, "--val-images", 6, *TINY)
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
    ("name", "arguments", "reason"),
    [
        ("penn_fudan", ["--data", "no/such/folder"], "no/such/folder"),
        ("coco", ["--data", "no/such/folder"], "no/such/folder"),
        ("coco", [], "give --data"),
        ("coco", ["--data", "coco", "--val-annotations", "mine.json"], "give either --data PATH or --annotations"),
        ("coco", ["--annotations", "a.json", "--images", "a", "--val-images", "b"], "--val-images needs"),
        ("shapes", ["--image-size", "100"], "multiples of 32"),
        ("shapes", ["--backbone", "resnet19"], "resnet19"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(name, arguments, reason, tmp_path, run_here):
    answer = run_here(name, "--output", tmp_path / "run", *arguments)
    assert answer.returncode == 2
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert reason in errors[0]
    assert "Traceback" not in answer.stderr


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.slow
@pytest.mark.parametrize("masks", ["--masks", "--no-masks"])
def test_stick_figures_with_masks_and_without(masks, tmp_path, run_here, eager_functions, monkeypatch):
    models = []
    monkeypatch.setattr(MaskRCNN, "export", lambda model, path: models.append(model))
    monkeypatch.setattr(recipe, "SavedModel", lambda path: models[0])
    answer = run_here(
        "stick_figures", "--output", tmp_path / "run", *TINY, "--steps", 2, "--epochs", 1, "--batch-size", 2,
        "--image-size", 96, "--val-images", 2, "--keypoint-width", 8, "--keypoint-depth", 1, masks,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {"bbox_AP", "keypoints_AP", "keypoints_AR75"} <= set(summary)
    assert ("segm_AP" in summary) == ("mask_loss" in models[0].loss_names) == (masks == "--masks")
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 2


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.parametrize(
    "options", [(), pytest.param(("--channels", 1, "--image-dtype", "uint16"), marks=pytest.mark.slow)]
)
def test_coco_recipe_on_a_real_file(options, kmr_data, tmp_path, run_here, eager_functions, monkeypatch):
    """Without an export, which is that of `shapes_run`."""
    models = []
    monkeypatch.setattr(MaskRCNN, "export", lambda model, path: models.append(model))
    monkeypatch.setattr(recipe, "SavedModel", lambda path: models[0])
    fruits = kmr_data / "fruits_nuts"
    command = (
        "coco", "--annotations", fruits / "trainval.json", "--images", fruits / "images", "--output", tmp_path / "run",
        *TINY, "--steps", 2, "--epochs", 1, "--batch-size", 2, "--image-size", 96, 128, *options, "--class-weights",
    )  # fmt: skip
    for words, reason in ((["fig"], "the word data, or NAME=FACTOR"), (["fog=2"], "class_weights names fog; the clas")):
        answer = run_here(*command, *words)
        assert answer.returncode == 2 and reason in answer.stderr and "Traceback" not in answer.stderr
    answer = run_here(*command, "data")
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert re.search(r"class weights: date [\d.]+, fig [\d.]+, hazelnut [\d.]+\n", answer.stdout)
    assert str(models[0].image_type) == ("uint16 [H, W, 1]" if options else "uint8 [H, W, 3]")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["train_images"] == 12
    assert summary["val_images"] == 2
    assert len(summary["per_class"]) == 3
    assert len(models) == 1 and summary["saved_model"].startswith(str(tmp_path))


@pytest.mark.parametrize("image_id", [7, "a", "cam1/0001", "../../x", "/tmp/x", "x" * 500, "a\nb"])
def test_names_of_drawn_images_stay_in_their_folder(image_id, tmp_path):
    path = tmp_path / recipe.image_name(3, image_id)
    path.touch()
    assert path.parent == tmp_path and [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.name.startswith("00003_") and path.suffix == ".png"
