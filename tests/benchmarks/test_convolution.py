"""`benchmarks/convolution.py`: help, and a run of a small case with both sides, whose outputs agree."""

import argparse
import json

import convolution

NAME = "P5, RPN or pyramid"


def test_help_shows_an_example(run_here):
    assert "python benchmarks/convolution.py --output" in run_here("convolution", "--help").stdout


def test_both_sides_are_timed(tmp_path, run_here):
    output = tmp_path / "convolution.json"
    words = ["--rounds", 1, "--repeats", 1, "--cases", NAME, "--dtype", "bfloat16", "--output", output]
    done = run_here("convolution", *words)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(output.read_text())["rows"]
    assert row["case"] == f"{NAME}; bfloat16"
    assert row["ours"]["median"] > 0 and row["peer"]["median"] > 0


def test_both_sides_agree_in_float32():
    """Without the processes, each of which imports TensorFlow."""
    found = {}
    for side in ("ours", "peer"):
        options = argparse.Namespace(worker=side, dtype="float32", repeats=2)
        call, repeats = convolution.case(f"{NAME}; float32", options)
        found[side] = call()
        assert repeats == 2
    assert convolution.check(convolution.BOUNDS["float32"], **found) is None
    found["ours"]["mean"] += 1
    assert "the outputs differ" in convolution.check(convolution.BOUNDS["float32"], **found)
