"""Folders and models without write permission, as a user who is not root."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
import recipe_runs
from recipe_runs import EPOCHS

NOBODY = 65534


def drop(locked=None):
    """Becomes a user without rights, after a folder was locked; root may write everywhere."""
    if locked:
        lock(locked)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.fixture
def tmp_path():
    """A folder of that user, whose parents it can enter."""
    folder = pathlib.Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


def lock(folder):
    """Takes the permission to write from a folder and its subfolders."""
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o555)


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_one_line_before_the_training(tmp_path):
    one = recipe_runs.Run(tmp_path / "run", before=functools.partial(drop, tmp_path))
    assert one.refused() == f"[Errno 13] Permission denied: '{tmp_path / 'run'}'"
    assert one.phases() == []


@pytest.mark.slow
def test_a_folder_that_is_locked_while_a_run_trains_is_one_line_and_the_run_continues(undisturbed, tmp_path):
    for phase in ("evaluation", "model"):
        one = recipe_runs.Run(tmp_path / "run", before=drop, fault=(phase, 2 if phase == "evaluation" else 1, lock))
        assert "Permission denied" in one.refused()
        subprocess.run(["chmod", "-R", "u+w", one.output], check=True)
    again = recipe_runs.Run(tmp_path / "run", before=drop)
    again.complete()
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))


@pytest.mark.slow
def test_a_model_that_cannot_be_written_predicts_and_is_evaluated(undisturbed, tmp_path):
    for name in ("model.keras", "saved_model"):
        source, target = undisturbed.output / name, tmp_path / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    picture = shutil.copy(next((undisturbed.output / "pictures").iterdir()), tmp_path / "photo.png")
    out = tmp_path / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    for path in tmp_path.rglob("*"):
        if path != out:
            path.chmod(0o555 if path.is_dir() else 0o444)
    tmp_path.chmod(0o555)
    for name in ("model.keras", "saved_model"):
        predict = ["predict", "--model", tmp_path / name, "--output", out / name, picture]
        evaluate = ["evaluate", "--model", tmp_path / name, "--dataset", "shapes", "--count", 2, "--image-size", 64]
        for words in (predict, evaluate):
            done = subprocess.run(
                [sys.executable, "-m", "keras_maskrcnn", *map(str, words)],
                preexec_fn=drop,
                env={**os.environ, "PYTHONPATH": str(recipe_runs.SCRIPT.parents[1])},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0 and done.stderr == "", (name, words[0], done.stderr[-2000:])
        assert (out / name / "photo.png").is_file()
