"""Memory of `predict` on large photos, in processes of their own."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "predict_memory.py"


def peak(case):
    """Peak memory of a case in bytes."""
    command = [sys.executable, str(SCRIPT), "--case", case, "--photos", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1]) * 10**6


@pytest.mark.slow
def test_300_objects_in_12_megapixels_stay_under_2_gib():
    assert peak("predict") < 2 * 2**30
    assert peak("detect, full masks") > peak("detect, cropped masks") + 5e8  # what is measured contains the masks
