"""`benchmarks/gpu.py` on the CPU: its arithmetic, and the side of this package at a tiny size, without TensorFlow."""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys

import gpu
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def run(*arguments, timeout=600):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


def answer(rate, **facts):
    return {"first_call_s": 3.0, "facts": {"images_per_s": rate, "memory_gb": 2.0, "flops": 1e12, **facts}}


def test_row_has_rates_ratios_and_the_fraction_of_the_peak():
    answers = {
        "ours": [answer(40.0, detections=100), answer(44.0, detections=100), answer(42.0, detections=100)],
        "eager": [answer(20.0, detections=98), answer(20.0, detections=98), answer(21.0, detections=98)],
    }
    row = gpu.row("network", 4, answers, peak=100e12)
    assert row["sides"]["ours"]["images_per_s"] == {"median": 42.0, "lowest": 40.0, "highest": 44.0}
    assert row["sides"]["ours"]["fraction_of_peak"] == pytest.approx(1e12 * 42 / 4 / 100e12)
    assert row["ratio"] == {"eager": {"median": 2.0, "lowest": 2.0, "highest": 2.2}}
    assert row["unequal"] is None
    assert gpu.row("network", 4, answers, peak=None)["sides"]["ours"]["fraction_of_peak"] is None


def test_compiled_torch_has_the_flops_of_eager_torch():
    answers = {"eager": [answer(20.0)], "compiled": [answer(30.0, flops=None)]}
    assert gpu.flops_of("compiled", answers) == 1e12
    assert gpu.flops_of("compiled", {"compiled": [answer(30.0, flops=None)]}) is None


def test_out_of_memory_gives_a_row(monkeypatch):
    class Side:
        def prepare(self, mode, batch):
            if batch > 4:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 bytes")
            return lambda: {"detections": 1}

        def memory(self):
            return 1e9

    monkeypatch.setattr(gpu, "SECONDS", 0.001)
    timer = gpu.Timer(Side())
    assert timer.case("network; 4")[0]()["memory_gb"] == 1.0
    assert timer.case("network; 8")[0]() == {"out_of_memory": True}
    assert timer.case("network; 16")[0]() == {"out_of_memory": True}
    full = [{"first_call_s": 1.0, "facts": {"out_of_memory": True}}]
    row = gpu.row("train", 8, {"ours": [answer(40.0)], "eager": full}, peak=None)
    assert row["sides"]["eager"] == {"out_of_memory": True} and row["ratio"] == {}
    assert any("out of memory" in line for line in gpu.table({"rows": [row]}))


def test_other_errors_are_raised():
    class Side:
        def prepare(self, mode, batch):
            raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        gpu.Timer(Side()).case("train; 1")[0]()


def test_unequal_work_is_reported():
    assert gpu.unequal({"ours": {"detections": 100}, "eager": {"detections": 90}}) is None
    assert gpu.unequal({"ours": {"detections": 100}, "eager": {"detections": 50}}) == "detections: ours 100, eager 50"
    assert gpu.unequal({"ours": {"detections": 100}, "eager": {"detections": 0}}) is not None
    assert gpu.unequal({"ours": {}, "eager": {}}) is None


def test_known_cards():
    assert gpu.known_peak("Intel Xeon, 16 cores, NVIDIA H200") == 989e12
    assert gpu.known_peak("NVIDIA H100 PCIe") == 756e12
    assert gpu.known_peak("NVIDIA L40S") == 362e12
    assert gpu.known_peak("2 cores, no GPU, AVX-512") is None


def test_help_shows_an_example_and_bad_input_is_one_line(run_here):
    answer = run_here("gpu", "--help")
    assert answer.returncode == 0 and "python benchmarks/gpu.py" in answer.stdout
    for wrong, said in (
        (("--modes", "dream"), "'dream' is not one of train, network, detect"),
        (("--batches", "1,zero"), "'zero' is not a whole number of 1 or more"),
        (("--peak-tflops", "-1"), "must be above 0"),
        (("--sides", "eager", "--peer-python", "/nowhere/python"), "/nowhere/python does not start"),
    ):
        answer = run_here("gpu", *wrong)
        assert answer.returncode != 0
        assert said in answer.stderr.splitlines()[-1]


def test_run_measures_every_case_and_writes_rows_in_ascending_order(tmp_path, monkeypatch, capsys):
    asked = []

    class Worker:
        def __init__(self, side):
            self.side = side

        def ask(self, name):
            asked.append((self.side, name))
            return {**answer(10.0, detections=100), "versions": {"numpy": "2"}}

    monkeypatch.setattr(gpu, "_worker", lambda side, options: contextlib.nullcontext(Worker(side)))
    output = tmp_path / "gpu.json"
    options = argparse.Namespace(
        modes=["train", "network", "detect"], sides=["ours", "eager"], batches=[2, 1], rounds=2, tiny=True, peak=1e13,
        output=output,
    )  # fmt: skip
    gpu.run(options)
    cases = [f"{mode}; {batch}" for mode in ("train", "network", "detect") for batch in (1, 2)]
    assert [row["case"] for row in json.loads(output.read_text())["rows"]] == cases
    assert list(dict.fromkeys(name for _, name in asked)) == cases
    assert asked[:6] == [(side, "train; 1") for side in ("ours", "eager") * 3]  # built, then timed in turn
    assert json.loads(output.read_text())["versions"] == {side: {"numpy": "2"} for side in ("ours", "eager")}
    assert "detect; 2: ours 10.0/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("modes", "batches"),
    [
        pytest.param(("network",), (1,), marks=pytest.mark.slow),
        pytest.param(("train", "network", "detect"), (1, 2), marks=pytest.mark.slow),
    ],
)
def test_tiny_run_of_our_side_without_tensorflow(modes, batches, tmp_path):
    output = tmp_path / "gpu.json"
    falling = ",".join(map(str, batches[::-1]))
    answer = run(
        "--tiny", "--sides", "ours", "--modes", ",".join(modes), "--batches", falling, "--rounds", 1,
        "--output", output, "--peak-tflops", 0.1,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    report = json.loads(output.read_text())
    assert [row["case"] for row in report["rows"]] == [f"{m}; {b}" for m in modes for b in batches]
    assert set(report["versions"]["ours"]) >= {"jax", "keras"} and "tensorflow" not in report["versions"]["ours"]
    for row in report["rows"]:
        ours = row["sides"]["ours"]
        assert ours["images_per_s"]["median"] > 0 and ours["memory_gb"] > 0
        if row["mode"] != "detect":
            assert ours["facts"]["flops"] > 1e6 and ours["fraction_of_peak"] > 0
        if row["mode"] != "train":
            assert ours["facts"]["detections"] == 5 * row["batch"]
    assert f"| {modes[0]} | 1 |" in answer.stdout
