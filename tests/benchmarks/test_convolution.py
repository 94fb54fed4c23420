"""`benchmarks/convolution.py`: help, and a run of a small case with both sides, whose outputs agree."""

import json

import pytest


def test_help_shows_an_example(run_here):
    assert "python benchmarks/convolution.py --output" in run_here("convolution", "--help").stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_sides_are_timed(dtype, tmp_path, run_here):
    output = tmp_path / "convolution.json"
    words = ["--rounds", 1, "--repeats", 1, "--cases", "P5, RPN or pyramid", "--dtype", dtype, "--output", output]
    done = run_here("convolution", *words)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(output.read_text())["rows"]
    assert row["case"] == f"P5, RPN or pyramid; {dtype}"
    assert row["ours"]["median"] > 0 and row["peer"]["median"] > 0
