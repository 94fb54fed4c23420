"""Disks that are full, folders without write permission, models without it: one line, and the run continues."""

import os
import subprocess

import pytest
import recipe_runs
from recipe_runs import EPOCHS, PHASES

# What a phase writes, and where in the run it fails; the phases that write nothing are left out.
FAILING = {phase: 2 if list(PHASES).index(phase) < 4 else 1 for phase in PHASES if phase != "training"}
NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB in memory at the folder of the test."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a file system")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def check_continued(run, undisturbed):
    again = run()
    again.complete()
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert recipe_runs.files(again.output) == recipe_runs.files(undisturbed.output)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_continues(undisturbed, small_disk, run):
    """One run, whose disk is filled at the beginning of one phase after the other, and freed again."""
    lines = []
    for phase in FAILING:
        line = run(fault=(phase, FAILING[phase], recipe_runs.fill)).refused()
        lines.append(f"{phase}: {line}")
        assert "No space left on device" in line and str(small_disk / "run") in line
        (small_disk / "filler").unlink()
    print(*lines, sep="\n")
    check_continued(run, undisturbed)
    assert not (small_disk / "run" / "backup").exists()


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_one_line_and_the_run_continues(undisturbed, run):
    lines = []
    for phase in FAILING:
        one = run(fault=(phase, FAILING[phase], recipe_runs.no_large_files))
        lines.append(f"{phase}: {one.refused()}")
        assert "File too large" in lines[-1] and str(one.output) in lines[-1]
    print(*lines, sep="\n")
    check_continued(run, undisturbed)
