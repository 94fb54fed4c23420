"""Disks that are full, and limits on the size of files: one line, and the run continues."""

import os
import subprocess

import pytest
import recipe_runs
from recipe_runs import EPOCHS, WRITING

LARGE = ("best", "backup", "model", "export")  # phases that write files beyond the limit


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 MB in memory as the folder of the run."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "run"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def check_continued(run, undisturbed):
    again = run()
    again.complete()
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert recipe_runs.files(again.output) == recipe_runs.files(undisturbed.output)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_continues(undisturbed, small_disk, run):
    """One run, whose disk is filled at the beginning of one phase after the other, and freed again."""
    for phase, number in WRITING.items():
        line = run(fault=(phase, number, recipe_runs.fill)).refused()
        print(f"{phase}: {line}")
        assert "No space left on device" in line and str(small_disk) in line
        (small_disk / "filler").unlink()
    check_continued(run, undisturbed)
    assert not (small_disk / "backup").exists()


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_one_line_and_the_run_continues(undisturbed, run):
    for phase in LARGE:
        one = run(fault=(phase, WRITING[phase], recipe_runs.no_large_files))
        line = one.refused()
        print(f"{phase}: {line}")
        assert ("the SavedModel cannot be written" if phase == "export" else "File too large") in line
        assert str(one.output) in line
    check_continued(run, undisturbed)
