"""Runs that are stopped and started again: the result is that of a run that was not."""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
from recipe_runs import check_equal, epochs

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.training import recipe
from keras_maskrcnn.training.backup import Backup

SCRIPT = pathlib.Path(__file__).parents[2] / "train" / "shapes.py"
# As those of the fixture `shapes`, for programs in processes of their own.
SMALL = ("--backbone", "resnet10", "--width", 8, "--batch-size", 2, "--image-size", 64, "--val-images", 2)
RUN = ("--steps", 4, "--epochs", 2, "--precision", "float32", *SMALL)


@pytest.fixture(scope="module")
def undisturbed(shapes, tmp_path_factory):
    """A run that was not stopped, and what it printed."""
    output = tmp_path_factory.mktemp("undisturbed")
    answer = shapes(output)
    assert answer.returncode == 0, answer.stderr
    return output, answer.stdout


@contextlib.contextmanager
def stop(owner, name, n):
    """The n-th call of a method raises KeyboardInterrupt, as Ctrl-C does."""
    calls, method = [], getattr(owner, name)

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == n:
            raise KeyboardInterrupt
        return method(*arguments, **options)

    with mock.patch.object(owner, name, stopped):
        yield


@pytest.mark.slow
def test_a_run_stopped_by_ctrl_c_four_times_equals_the_undisturbed_run(shapes, undisturbed, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    moments = [
        ((Backup, "on_epoch_end", 1), " in the first epoch; the same command starts it again"),
        ((MaskRCNN, "train_step", 4), "; the same command continues after epoch 1"),
        # A row of the history and its values in TensorBoard are written, the state is not.
        ((Backup, "on_epoch_end", 1), "; the same command continues after epoch 1"),
        ((MaskRCNN, "save", 1), "; the same command continues after epoch 2"),
    ]
    for moment, message in moments:
        with stop(*moment):
            answer = shapes(tmp_path)
        assert answer.returncode == 130
        assert answer.stderr.strip() == "interrupted" + message
    with stop(MaskRCNN, "train_step", 1):  # after the last epoch nothing is trained again
        answer = shapes(tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert f"{tmp_path} continues after epoch 2 of 2" in answer.stdout
    check_equal(tmp_path, undisturbed[0])
    assert epochs(tmp_path) == [0, 1]
    assert not (tmp_path / "backup").exists()
    log = EventAccumulator(str(tmp_path / "logs"))
    log.Reload()
    assert [event.step for event in log.Scalars("loss")] == [1, 2]


def test_a_finished_run_is_left_as_it_is(shapes, undisturbed):
    output, _ = undisturbed
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    answer = shapes(output, "--workers", 1, "--image-size", 64, 64)
    assert answer.returncode == 0
    assert answer.stdout.strip() == f"{output} holds a finished run; --overwrite starts it again"
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def unfinished(shapes, tmp_path_factory):
    """A run that was stopped after its last epoch, before anything was saved."""
    output = tmp_path_factory.mktemp("unfinished")
    with stop(MaskRCNN, "save", 1):
        assert shapes(output).returncode == 130
    return output


@pytest.mark.parametrize("kind", ["finished", "unfinished"])
def test_other_arguments_are_named_in_one_line(shapes, undisturbed, unfinished, kind):
    output = undisturbed[0] if kind == "finished" else unfinished
    answer = shapes(output, "--backbone", "resnet18", "--steps", 9)
    assert answer.returncode == 2
    [line] = answer.stderr.splitlines()
    assert line.startswith(f"error: {output} holds a run with ")
    assert "--backbone resnet10 (not resnet18)" in line and "--steps 4 (not 9)" in line and "--overwrite" in line
    assert "--width" not in line


def test_overwrite_starts_again(shapes, unfinished, tmp_path):
    output = shutil.copytree(unfinished, tmp_path / "run")
    (output / "mine.txt").write_text("not of the run")
    with stop(MaskRCNN, "train_step", 1):
        answer = shapes(output, "--seed", 1, "--overwrite")
    assert answer.returncode == 130 and "first epoch" in answer.stderr
    assert sorted(path.name for path in output.iterdir()) == ["backup", "history.csv", "mine.txt"]
    assert list((output / "backup").iterdir()) == [output / "backup" / "arguments.json"]


def test_without_tensorflow_the_summary_has_no_saved_model(shapes, unfinished, tmp_path, monkeypatch):
    output = shutil.copytree(unfinished, tmp_path / "run")
    monkeypatch.setattr(recipe, "is_tensorflow", lambda: False)
    answer = shapes(output)
    assert answer.returncode == 0, answer.stderr
    assert json.loads((output / "summary.json").read_text())["saved_model"] is None
    assert len(list((output / "pictures").glob("*.png"))) == 2
    command = f"KERAS_BACKEND=tensorflow python -m keras_maskrcnn export --model {output / 'model.keras'}"
    assert f"SavedModel   left out: export needs TensorFlow. {command}" in answer.stdout


def test_the_epoch_line_has_the_losses_and_two_scores(undisturbed):
    output, printed = undisturbed
    lines = [line for line in printed.splitlines() if " - loss: " in line]
    assert len(lines) == 2
    names = [part.split(":")[0] for part in lines[-1].split(" - ")[3:]]
    losses = ["rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss"]
    assert names == ["loss", *losses, "val_loss", "val_bbox_AP", "val_segm_AP"]
    header = (output / "history.csv").read_text().splitlines()[0].split(",")
    assert {"gradient_norm", "skipped_steps", "proposal_recall", "val_segm_ARl", *names} <= set(header)


def program(output, *arguments, **environment):
    """A process of `train/shapes.py`."""
    words = [sys.executable, SCRIPT, "--output", output, *(arguments or RUN)]
    variables = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")}
    variables |= {"PYTHONPATH": str(SCRIPT.parents[1]), **environment}
    return subprocess.Popen(
        [str(word) for word in words],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A process that a shell started in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_error_is_the_only_line(tmp_path):
    process = program(tmp_path, "--image-size", 100)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 2 and output == ""
    [line] = errors.splitlines()
    assert line.startswith("error: ")


@pytest.mark.slow
def test_a_run_on_jax_ends_with_a_summary_and_can_be_stopped(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = program(stopped, KERAS_BACKEND="jax")
    while not (stopped / "backup" / "epoch_0001.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    for output in (whole, stopped):
        process = program(output, KERAS_BACKEND="jax")
        printed, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-2000:]
        assert "SavedModel   left out" in printed
    assert "continues after epoch 1 of 2" in printed
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["saved_model"] is None and summary["versions"]["jax"]
    check_equal(stopped, whole)


# Arguments of a recipe by which a run is recognised.
COMPARED = {"overwrite": False, "steps": 1, "minutes": None, "precision": "float32", "image_size": 64}


def test_ctrl_c_while_an_object_is_deleted_stops_the_run(capfd, request):
    class Deleted:
        def __del__(self):
            raise KeyboardInterrupt

    def run(arguments):
        Deleted()
        for _ in range(100):
            time.sleep(0.05)

    # Processes that were started in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with mock.patch.object(sys, "unraisablehook", sys.unraisablehook), pytest.raises(SystemExit) as stopped:
        recipe.main(run, argparse.Namespace(output=pathlib.Path("no such run"), **COMPARED))
    assert stopped.value.code == 130
    assert capfd.readouterr().err.startswith("\ninterrupted")


def test_ctrl_c_while_the_last_lines_are_printed_says_that_the_run_is_finished(tmp_path, capsys):
    def run(arguments):
        (tmp_path / "summary.json").write_text("{}")
        raise KeyboardInterrupt

    with mock.patch.object(sys, "unraisablehook", sys.unraisablehook), pytest.raises(SystemExit) as stopped:
        recipe.main(run, argparse.Namespace(output=tmp_path, **COMPARED))
    assert stopped.value.code == 130
    assert capsys.readouterr().err == f"\ninterrupted; {tmp_path} holds a finished run\n"


def test_an_error_of_the_system_without_a_file_names_the_folder_of_the_run(capsys):
    def run(arguments):
        raise OSError(28, "No space left on device")

    with pytest.raises(SystemExit) as stopped:
        recipe.main(run, argparse.Namespace(output=pathlib.Path("runs/shapes"), debug=False))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: runs/shapes: No space left on device\n"
