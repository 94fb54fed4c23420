"""The measurements of the service: the load for seconds instead of minutes, and batches."""

import json

import pytest
import serve_load


@pytest.mark.slow
def test_a_load_beyond_the_capacity_gives_429_and_no_other_error(run_here, model_file, tmp_path):
    report = tmp_path / "report.json"
    words = [
        "--model",
        model_file,
        "--seconds",
        "20",
        "--warm-up",
        "5",
        "--calm",
        "10",
        "--queue",
        "8",
        "--output",
        report,
    ]
    done = run_here("serve_load", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["errors"] == 0 and found["exit_code"] == 0
    assert found["answers"]["200"] > 0 and found["answers"]["429"] > 0
    assert found["p50"] <= found["p99"] <= found["bound"]
    assert found["mb"]["end"] < 1.2 * found["mb"]["start"]
    assert found["sent_per_served"] >= 2


HELD = {
    "errors": 0,
    "times": 2.0,
    "sent_per_served": 2.1,
    "p99": 1.0,
    "bound": 1.5,
    "mb": {"middle": 1000, "end": 1049},
    "exit_code": 0,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"errors": 1}, "1 answers are neither 200 nor 429"),
        ({"sent_per_served": 1.78}, "the load was 1.78 times the served"),
        ({"p99": 1.6}, "p99 is 1.6 s, above the bound of 1.5 s"),
        ({"mb": {"middle": 1000, "end": 1051}}, "memory grows from 1000 to 1051 MB"),
        ({"exit_code": -9}, "exit code -9"),
    ],
)
def test_what_a_load_must_hold(change, reason):
    failures = serve_load.failures({**HELD, **change})
    assert not failures if reason is None else reason in failures[0] and len(failures) == 1


def test_batches_of_the_service_are_timed(run_here, model_file, tmp_path):
    report = tmp_path / "report.json"
    words = ["--model", model_file, "--sizes", "32", "--batch", "2", "--rounds", "1", "--output", report]
    done = run_here("serve_batch", *words)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(report.read_text())["sizes"]
    assert row["size"] == 32 and set(row["ms"]) == {"batch 1", "batch 2"}
    assert row["ratio"]["median"] == pytest.approx(row["ms"]["batch 1"] / row["ms"]["batch 2"], rel=0.1)
