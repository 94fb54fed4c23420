"""`benchmarks/growth.py`: its arithmetic, its tables, and a tiny run to the end."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "growth.py"


def run(*arguments, timeout=600):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def growth():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("growth", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


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


def test_linear_growth_has_exponent_one_and_no_knee(growth):
    rows = [row("batch", n, 0.5 * n, 100 * n) for n in (1, 2, 4, 8)]
    assert growth.growth(rows, "batch", "seconds") == {"last": 1.0, "all": 1.0, "knee": None}


def test_knee_is_where_the_slope_first_exceeds_its_limit(growth):
    rows = [row("proposals", n, 1 + n * n / 1e6, 50) for n in (100, 300, 1000, 2000, 4000)]
    time = growth.growth(rows, "proposals", "seconds")
    # The slope is 0.07, 0.5, 1.32, 1.77: 1000 is the last value that is cheap to exceed.
    assert time["knee"] == "1000"
    assert time["last"] == pytest.approx(1.766, abs=0.01)
    assert growth.growth(rows, "proposals", "memory_mb") == {"last": 0.0, "all": 0.0, "knee": None}


def test_fixed_costs_bring_the_exponent_below_one(growth):
    rows = [row("batch", n, 3 + n, 100) for n in (1, 2, 4)]
    found = growth.growth(rows, "batch", "seconds")
    assert 0 < found["all"] < 0.5 and found["last"] == pytest.approx(0.485, abs=0.01)


def test_memory_below_what_the_imports_took_does_not_break_the_logarithm(growth):
    rows = [row("classes", n, 1.0, memory) for n, memory in ((1, -3), (80, 0), (1203, 40))]
    assert growth.growth(rows, "classes", "memory_mb")["last"] > 0


def test_a_line_varies_one_thing_alone(growth):
    base = growth.base_point("inference", 512, tiny=False)
    for variable in growth.VALUES:
        line = growth.points("inference", variable, base, growth.VALUES)
        assert len({point.value(variable) for point in line}) == len(line)
        others = [name for name in growth.VALUES if name != variable]
        assert all(point.value(name) == base.value(name) for point in line for name in others)


def test_help_shows_an_example_and_bad_input_is_one_line():
    answer = run("--help")
    assert answer.returncode == 0 and "python benchmarks/growth.py" in answer.stdout
    for wrong, said in (
        (("--variables", "area,colour"), "'colour' is not one of area, proposals, instances, batch, classes"),
        (("--size", "100"), "must be a multiple of 32"),
        (("--redraw", "nowhere.json"), "no such file"),
    ):
        answer = run(*wrong)
        assert answer.returncode == 2
        assert said in answer.stderr.splitlines()[-1]


def test_tiny_run_writes_results_tables_and_plot(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    docs.joinpath("speed.md").write_text("before\n<!-- growth: begin -->\nold\n<!-- growth: end -->\nafter\n")
    output = tmp_path / "out" / "growth.json"
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
