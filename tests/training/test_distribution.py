"""Several processes train as one: real processes on the CPU of this machine, which `several.py` starts."""

import csv
import json
import signal

import keras
import numpy as np
import pytest
import several

import keras_maskrcnn.models  # noqa: F401  registers the classes of the files

SHAPES = several.ROOT / "train" / "shapes.py"
RUN = ("--steps", 6, "--epochs", 3, "--batch-size", 2, "--image-size", 64, "--val-images", 3, "--backbone", "resnet10")
RUN += ("--width", 8, "--precision", "float32", "--wait", 600)


def trained(folder, kind, count, **options):
    """What each process of a training found, and the arrays of its variables."""
    folder.mkdir()
    command = [several.__file__, kind, folder, json.dumps(options)]
    started = [several.start(command, environment) for environment in several.environments(kind, count)]
    for code, _, errors in several.finished(started):
        assert code == 0, errors[-3000:]
    results = []
    for index in range(count):
        with np.load(folder / f"{index}.npz") as arrays:
            results.append((json.loads((folder / f"{index}.json").read_text()), list(arrays.values())))
    return results


@pytest.mark.slow
@pytest.mark.parametrize(("one", "kind"), [("alone", "multiworker"), ("jax", "jax")])
def test_two_processes_train_as_one(tmp_path, one, kind):
    [(alone, arrays)] = trained(tmp_path / "one", one, 1)
    assert len(alone["steps"]) == several.STEPS
    for found, others in trained(tmp_path / "two", kind, 2):
        for step, expected in zip(found["steps"], alone["steps"], strict=True):
            assert step == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert found["evaluated"] == pytest.approx(alone["evaluated"], rel=1e-4)
        assert found["scores"] == alone["scores"]
        for array, expected in zip(others, arrays, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


def recipe(output, environments, *arguments):
    """Processes of `train/shapes.py`; all but the first have a folder of their own, which they must not need."""
    folders = [output, *(output.with_name(f"{output.name}_of_{index}") for index in range(1, len(environments)))]
    return [
        several.start([SHAPES, "--output", folder, *RUN, *arguments], environment)
        for folder, environment in zip(folders, environments, strict=True)
    ]


def history(output):
    with open(output / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_that_starts_again_continues_the_run(tmp_path, victim):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    two = list(several.environments("multiworker", 2))
    for code, _, errors in several.finished(recipe(whole, two, "--distribute", "multiworker")):
        assert code == 0, errors[-3000:]
    assert not (tmp_path / "whole_of_1").exists(), "only the first process writes"
    two = list(several.environments("multiworker", 2))
    command = [SHAPES, "--output", killed, *RUN, "--distribute", "multiworker"]
    processes = [several.start(command, environment) for environment in two]
    several.wait_for(killed / "backup" / "epoch_0001.npz", processes)
    processes[victim].send_signal(signal.SIGKILL)
    processes[victim].communicate()
    processes[victim] = several.start(command, two[victim])
    results = several.finished(processes)
    for code, _, errors in results:
        assert code == 0, errors[-3000:]
    assert "another process was lost" in results[1 - victim][2]
    assert "continues after epoch" in results[0][1]
    assert [row["epoch"] for row in history(killed)] == ["0", "1", "2"]
    for row, expected in zip(history(killed), history(whole), strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-4, abs=1e-6, nan_ok=True
        )
    models = [keras.saving.load_model(output / "model.keras") for output in (killed, whole)]
    for weight, expected in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "index"), [("multiworker", 0), ("multiworker", 1), ("jax", 0), ("jax", 1)])
def test_a_process_that_never_comes_is_one_line(tmp_path, kind, index):
    environment = list(several.environments(kind, 2))[index]
    process = several.start([SHAPES, "--output", tmp_path, *RUN, "--distribute", kind, "--wait", 1], environment)
    [(code, output, errors)] = several.finished([process])
    assert code == 2 and output == ""
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    wanted = "waited 1 s for process 1 of 2" if index == 0 else "waited 1 s for the other 1 processes; process 0 is"
    assert len(lines) == 1 and wanted in lines[0]
    assert list(tmp_path.iterdir()) == []
