"""`benchmarks/depthwise.py`: help, and a run with both sides, whose gradients agree."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "depthwise.py"


def test_help_shows_an_example(run_here):
    assert "python benchmarks/depthwise.py --output" in run_here("depthwise", "--help").stdout


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_both_sides_are_timed(tmp_path, dtype):
    output = tmp_path / "depthwise.json"
    words = ["--rounds", 1, "--batch", 1, "--repeats", 1, "--dtype", dtype, "--output", output]
    done = subprocess.run([sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert len(rows) == 12 and all(row[side]["median"] > 0 for row in rows for side in ("ours", "peer"))
