import json
import os
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import machine
import pairs

WORKER = """
import os, sys, time
sys.path.insert(0, {folder!r})
import pairs

def check(ours, peer):
    return None if ours["work"] == peer["work"] else f"{{ours['work']}} is not {{peer['work']}}"

def make(name):
    if name == "ours alone" and options.worker == "peer":
        return None
    if name == "dies":
        raise ValueError("no such case")
    if name == "killed":
        os.kill(os.getpid(), 9)
    calls = []
    def call():
        calls.append(0)
        time.sleep({{"ours": 0.002, "peer": 0.02}}[options.worker])
        work = options.worker if name == "unequal" else name
        return {{"work": work, "calls": len(calls), "process": os.getpid(), "extra": options.extra}}
    return (call, 2, lambda: None) if name == "cheap start" else (call, 2)

parser = pairs.arguments("A test.\\n\\n    python worker.py", 3)
parser.add_argument("--cases", nargs="+")
parser.add_argument("--extra")
parser.add_argument("--fresh", action="store_true")
options = parser.parse_args()
if options.worker:
    pairs.serve(make)
else:
    pairs.compare(__file__, options, options.cases, check=check, words=("--extra", "word"), peer_name="a peer",
                  fresh=options.fresh)
"""


@pytest.fixture
def run(tmp_path):
    """Runs the worker script; returns the finished process and what it wrote to its JSON file, or None."""
    script, output = tmp_path / "worker.py", tmp_path / "new" / "result.json"
    script.write_text(WORKER.format(folder=str(BENCHMARKS)))

    def start(*words, peer=True):
        more = ["--peer-python", sys.executable] if peer else []
        command = [sys.executable, str(script), "--output", str(output), *words, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done, json.loads(output.read_text()) if output.exists() else None

    return start


def test_both_sides_are_timed_and_written(run):
    done, report = run("--cases", "a case", "ours alone")
    assert done.returncode == 0, done.stderr
    assert report["script"] == "worker.py" and report["peer"] == "a peer"
    assert report["command"] == "python worker.py --output PATH --cases 'a case' 'ours alone' --peer-python PATH"
    assert "cores" in report["machine"] and set(report["versions"]) == {"ours", "peer"}
    first, second = report["rows"]
    assert first["case"] == "a case" and first["unit"] == "ms"
    assert 2 <= first["ours"]["lowest"] <= first["ours"]["median"] <= first["ours"]["highest"]
    assert first["ratio"]["lowest"] > 1
    # Two calls warm up, then three rounds of two.
    assert first["facts"]["ours"]["calls"] == 8 and first["facts"]["ours"]["extra"] == "word"
    assert first["facts"]["peer"]["first_call_s"] >= 0.02
    assert first["memory_mb"]["ours"] > 1 and first["memory_mb"]["peer"] > 1
    assert second["peer"] is None and second["ratio"] is None and second["facts"]["peer"] is None
    table = done.stdout.splitlines()
    assert "peer / ours" in table[1] and "×" in table[2] and "×" not in table[3]


def test_processes_are_shared_unless_fresh(run):
    for words, number in (((), 1), (("--fresh",), 2)):
        _, report = run("--cases", "one", "two", *words)
        assert len({row["facts"]["ours"]["process"] for row in report["rows"]}) == number
        assert len({row["facts"][side]["process"] for row in report["rows"] for side in pairs.SIDES}) == 2 * number


def test_a_case_may_have_its_own_warm_up(run):
    _, report = run("--cases", "cheap start")
    assert report["rows"][0]["facts"]["ours"]["calls"] == 6


def test_without_a_peer_ours_alone_is_timed(run):
    done, report = run("--cases", "a case", peer=False)
    assert done.returncode == 0
    assert report["peer"] is None and report["rows"][0]["ratio"] is None and list(report["versions"]) == ["ours"]


@pytest.mark.parametrize(
    "case, said",
    [
        ("dies", "dies: ours stopped with exit code 1: ValueError: no such case"),
        ("killed", "killed: ours stopped with exit code -9: no message"),
        ("unequal", "unequal: ours is not peer"),
    ],
)
def test_an_interrupted_run_ends_with_one_line(run, case, said):
    done, report = run("--cases", "a case", case, "a case")
    assert done.returncode == 1
    assert done.stderr.strip() == said
    assert [row["case"] for row in report["rows"]] == ["a case"]  # earlier rows are kept


def test_a_missing_python_gives_one_line(run):
    done, _ = run("--cases", "a case", "--peer-python", "/no/python", peer=False)
    assert done.returncode == 1 and done.stderr.strip() == "/no/python does not start: No such file or directory"


@pytest.mark.parametrize("words", [("--rounds", "0"), ("--threads", "none")])
def test_counts_are_checked(run, words):
    done, _ = run("--cases", "a case", *words)
    assert done.returncode == 2 and "whole number of 1 or more" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_threads_confine_the_process(run):
    _, report = run("--cases", "a case", "--threads", "1")
    cores = "1 cores" if os.cpu_count() == 1 else f"1 of {os.cpu_count()} cores"
    assert cores in report["machine"]


def test_versions_names_what_is_installed():
    found = machine.versions(["pytest", "there is no such distribution"])
    assert found == {"pytest": pytest.__version__}


def test_peak_memory_is_that_of_the_process_and_not_of_its_parent():
    large = bytearray(300_000_000)
    large[::4096] = b"x" * len(large[::4096])
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import machine; print(machine.peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 5 < int(done.stdout) < 200 < machine.peak_memory()
