"""`benchmarks/growth.py`: its arithmetic, its tables, and a tiny run to the end."""

import contextlib
import io
import json
import subprocess
import sys

import growth
import machine
import pairs
import pytest


def row(variable, value, seconds, memory, work="inference", size=(512, 512)):
    time = {"median": seconds, "lowest": seconds, "highest": seconds}
    return {
        "work": work,
        "variable": variable,
        "value": value,
        "point": {"size": size},
        "seconds": time,
        "memory_mb": memory,
    }


def test_linear_growth_has_exponent_one_and_no_knee():
    rows = [row("batch", n, 0.5 * n, 100 * n) for n in (1, 2, 4, 8)]
    assert growth.growth(rows, "batch", "seconds") == {"last": 1.0, "all": 1.0, "knee": None}


def test_knee_is_where_the_slope_first_exceeds_its_limit():
    rows = [row("proposals", n, 1 + n * n / 1e6, 50) for n in (100, 300, 1000, 2000, 4000)]
    time = growth.growth(rows, "proposals", "seconds")
    # The slope is 0.07, 0.5, 1.32, 1.77: 1000 is the last value that is cheap to exceed.
    assert time["knee"] == "1000"
    assert time["last"] == pytest.approx(1.766, abs=0.01)
    assert growth.growth(rows, "proposals", "memory_mb") == {"last": 0.0, "all": 0.0, "knee": None}


def test_fixed_costs_bring_the_exponent_below_one():
    rows = [row("batch", n, 3 + n, 100) for n in (1, 2, 4)]
    found = growth.growth(rows, "batch", "seconds")
    assert 0 < found["all"] < 0.5 and found["last"] == pytest.approx(0.485, abs=0.01)


def test_memory_below_what_the_imports_took_does_not_break_the_logarithm():
    rows = [row("classes", n, 1.0, memory) for n, memory in ((1, -3), (80, 0), (1203, 40))]
    assert growth.growth(rows, "classes", "memory_mb")["last"] > 0


def test_a_line_varies_one_thing_alone():
    base = growth.base_point("inference", 512, tiny=False)
    for variable in growth.VALUES:
        line = growth.points("inference", variable, base, growth.VALUES)
        assert len({point.value(variable) for point in line}) == len(line)
        others = [name for name in growth.VALUES if name != variable]
        assert all(point.value(name) == base.value(name) for point in line for name in others)


def test_help_shows_an_example_and_bad_input_is_one_line(run_here):
    answer = run_here("growth", "--help")
    assert answer.returncode == 0 and "python benchmarks/growth.py" in answer.stdout
    for wrong, said in (
        (("--variables", "area,colour"), "'colour' is not one of area, proposals, instances, batch, classes"),
        (("--size", "100"), "must be a multiple of 32"),
        (("--redraw", "nowhere.json"), "no such file"),
    ):
        answer = run_here("growth", *wrong)
        assert answer.returncode == 2
        assert said in answer.stderr.splitlines()[-1]


@pytest.mark.parametrize("work", growth.WORKS)
def test_a_worker_measures_a_point(work, run_here, monkeypatch, eager_functions):
    point = growth.Point((64, 96), proposals=20, instances=4, batch=2, classes=3)
    name = growth.describe(work, point, tiny=True, dtype="float32")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{name}\n{name}\n"))
    lines = run_here("growth", "--worker", "ours").stdout.splitlines()
    made, timed = (json.loads(line.removeprefix(pairs.ANSWER)) for line in lines if line.startswith(pairs.ANSWER))
    facts = timed["facts"]
    assert made["exists"] and timed["seconds"] > 0 and timed["versions"]["keras"]
    assert facts["instances"] == 4, "all slots of detections are filled"
    assert facts["dtype"] == "float32" and facts["import_mb"] > 100
    assert facts["import_mb"] + facts["memory_mb"] <= machine.peak_memory()
    assert (facts.get("mask_rois", 0) > 0) == (work == "training")


@pytest.fixture
def docs(tmp_path):
    """A folder with a page that has a place for the tables."""
    docs = tmp_path / "docs"
    docs.mkdir()
    docs.joinpath("speed.md").write_text("before\n<!-- growth: begin -->\nold\n<!-- growth: end -->\nafter\n")
    return docs


def check_run(run, docs, output):
    """Runs one work after the other, and checks the results, the tables and the plot.

    Args:
        run: function of the arguments to a `CompletedProcess`.
        docs: folder of the page.
        output: file of the results.
    """
    common = ("--tiny", "--rounds", 1, "--output", output)
    answer = run(*common, "--variables", "batch", "--works", "training")
    assert answer.returncode == 0, answer.stderr[-2000:]
    answer = run(*common, "--variables", "area", "--works", "inference", "--docs", docs)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "2/2 inference area" in answer.stdout
    report = json.loads(output.read_text())
    assert report["script"] == "benchmarks/growth.py" and report["base"]["dtype"]
    # The rows of the first run are still there.
    assert [(r["variable"], r["value"]) for r in report["rows"]] == [
        ("batch", 1),
        ("batch", 2),
        ("area", 4096),
        ("area", 12288),
    ]
    for found in report["rows"]:
        assert found["seconds"]["median"] > 0 and found["import_mb"] > 100
    assert report["rows"][2]["facts"]["instances"] == 4, "all slots of detections are filled"
    page = docs.joinpath("speed.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert "](growth.svg)" in page and "| inference | area | **64×64** " in page and "| training | batch |" in page
    assert "<svg" in docs.joinpath("growth.svg").read_text()
    (docs / "growth.svg").unlink()
    answer = run("--redraw", output, "--docs", docs)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert docs.joinpath("speed.md").read_text() == page and (docs / "growth.svg").exists()


def test_runs_are_joined_to_results_tables_and_plot(docs, tmp_path, monkeypatch, run_here):
    """The workers' answers are given; `test_a_worker_measures_a_point` obtains such answers."""
    asked = []

    class Worker(contextlib.nullcontext):
        def __init__(self, side, command):
            super().__init__(self)
            assert side == "ours" and command[1].endswith("growth.py") and command[2:] == ["--worker", "ours"]

        def ask(self, name):
            asked.append(json.loads(name))
            facts = {"dtype": "float32", "instances": 4, "import_mb": 700, "memory_mb": 10 * len(asked)}
            return {"seconds": 0.1, "first_call_s": 1.0, "facts": facts, "versions": {"keras": "3"}}

    monkeypatch.setattr(pairs, "Worker", Worker)
    check_run(lambda *words: run_here("growth", *words), docs, tmp_path / "out" / "growth.json")
    works = [question["work"] for question in asked]
    assert works == ["training"] * 4 + ["inference"] * 4  # each point is made, then timed once
    assert [question["point"]["batch"] for question in asked[:4]] == [1, 1, 2, 2]


@pytest.mark.slow
def test_whole_run_in_processes_of_its_own(docs, tmp_path):
    def run(*words):
        command = [sys.executable, growth.__file__, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    check_run(run, docs, tmp_path / "out" / "growth.json")
