"""`benchmarks/backbones.py`: help, bad input, and a run with both sides."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "backbones.py"


def test_help_shows_an_example_and_bad_input_is_one_line(run_here):
    assert "python benchmarks/backbones.py --output" in run_here("backbones", "--help").stdout
    done = run_here("backbones", "--size", 100)
    assert done.returncode == 2 and "--size 100 is not a multiple of 64" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_both_backbones_are_timed(tmp_path):
    output = tmp_path / "backbones.json"
    words = ["--rounds", 1, "--size", 64, "--batch", 1, "--norms", "frozen_batch", "--output", output]
    done = subprocess.run([sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(output.read_text())["rows"]
    parameters = {side: row["facts"][side]["parameters"] for side in ("ours", "peer")}
    assert all(2e6 < count < 4e6 for count in parameters.values()) and parameters["ours"] != parameters["peer"]
    assert row["ours"]["median"] > 0 and row["peer"]["median"] > 0
