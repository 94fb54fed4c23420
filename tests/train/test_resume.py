"""Runs that are stopped and started again: the result is that of a run that was not."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.training import recipe

SCRIPT = pathlib.Path(__file__).parents[2] / "train" / "shapes.py"
SMALL = ("--backbone", "resnet10", "--width", 8, "--batch-size", 2, "--image-size", 64, "--val-images", 2)
RUN = ("--steps", 4, "--epochs", 2, "--precision", "float32", *SMALL)


@pytest.fixture(scope="module")
def shapes(run_here):
    """Function from arguments to a `CompletedProcess` of `train/shapes.py`, run eagerly and without an export."""
    models = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNN, "export", lambda model, path: models.append(model))
        patch.setattr(recipe, "SavedModel", lambda path: models[-1])
        tf.config.run_functions_eagerly(True)
        yield lambda output, *arguments: run_here("shapes", "--output", output, *(arguments or RUN))
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def undisturbed(shapes, tmp_path_factory):
    """A run that was not stopped, and what it printed."""
    output = tmp_path_factory.mktemp("undisturbed")
    answer = shapes(output)
    assert answer.returncode == 0, answer.stderr
    return output, answer.stdout


def test_without_tensorflow_the_summary_has_no_saved_model(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "is_tensorflow", lambda: False)
    answer = shapes(tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["saved_model"] is None
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    command = f"KERAS_BACKEND=tensorflow python -m keras_maskrcnn export --model {tmp_path / 'model.keras'}"
    assert f"SavedModel   left out: export needs TensorFlow. {command}" in answer.stdout


def test_the_epoch_line_has_the_losses_and_two_scores(undisturbed):
    output, printed = undisturbed
    lines = [line for line in printed.splitlines() if " - loss: " in line]
    assert len(lines) == 2
    names = [part.split(":")[0] for part in lines[-1].split(" - ")[3:]]
    losses = ["rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss"]
    assert names == ["loss", *losses, "val_bbox_AP", "val_segm_AP"]
    header = (output / "history.csv").read_text().splitlines()[0].split(",")
    assert {"gradient_norm", "skipped_steps", "proposal_recall", "val_segm_ARl", *names} <= set(header)


def program(output, *arguments, **environment):
    """A process of `train/shapes.py`."""
    words = [sys.executable, SCRIPT, "--output", output, *(arguments or RUN)]
    variables = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")}
    variables |= {"PYTHONPATH": str(SCRIPT.parents[1]), **environment}
    return subprocess.Popen(
        [str(word) for word in words], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_an_error_is_the_only_line(tmp_path):
    process = program(tmp_path, "--image-size", 100)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 2 and output == ""
    [line] = errors.splitlines()
    assert line.startswith("error: ")
