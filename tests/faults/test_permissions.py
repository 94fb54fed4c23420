"""Folders and models without write permission, for root as for others: root gives up the right to write everywhere."""

import ctypes
import functools
import os
import shutil
import subprocess
import sys

import pytest
import recipe_runs
from recipe_runs import EPOCHS, WRITING

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="root gives up its rights with capabilities of Linux")

# Capabilities of Linux that ignore the permissions of files, see capabilities(7).
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2
PR_CAPBSET_DROP, CAPABILITY_VERSION_3 = 24, 0x20080522


def drop(locked=None):
    """Makes the permissions of files binding for this process and those that it starts; first locks a folder."""
    if locked:
        lock(locked)
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for number in (0, 1, 2):  # effective, permitted, inheritable
        sets[number] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH) if os.geteuid() == 0 else ():
        assert libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
    assert libc.capset(header, sets) == 0


def lock(folder):
    """Takes the permission to write from a folder and its subfolders."""
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o555)


def unlock(folder):
    """Gives it back."""
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)


@pytest.fixture(autouse=True)
def unlocked(tmp_path):
    """Folders of the test can be deleted."""
    yield
    unlock(tmp_path)


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_one_line_before_the_training(tmp_path):
    one = recipe_runs.Run(tmp_path / "run", before=functools.partial(drop, tmp_path))
    assert one.refused() == f"[Errno 13] Permission denied: '{tmp_path / 'run'}'"
    assert one.phases() == []


@pytest.mark.slow
def test_a_folder_that_is_locked_while_a_run_trains_is_one_line_and_the_run_continues(undisturbed, tmp_path):
    for phase in ("evaluation", "model"):
        one = recipe_runs.Run(tmp_path / "run", before=drop, fault=(phase, WRITING[phase], lock))
        assert "Permission denied" in one.refused()
        unlock(one.output)
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
    for path in tmp_path.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    out = tmp_path / "out"
    out.mkdir()
    tmp_path.chmod(0o555)
    for name in ("model.keras", "saved_model"):
        predict = ["predict", "--model", tmp_path / name, "--output", out / name, picture]
        evaluate = ["evaluate", "--model", tmp_path / name, "--dataset", "shapes", "--count", 2, "--image-size", 64]
        for words in (predict, evaluate):
            done = subprocess.run(
                [sys.executable, "-m", "keras_maskrcnn", *map(str, words)],
                preexec_fn=drop,
                env=recipe_runs.environment(),
                capture_output=True,
                text=True,
                timeout=recipe_runs.SECONDS,
            )
            assert done.returncode == 0 and done.stderr == "", (name, words[0], done.stderr[-2000:])
        assert (out / name / "photo.png").is_file()
