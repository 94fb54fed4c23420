"""Every reader on some changed files and requests: a clean one-line error or a right answer, and nothing else.

The numbers of cases are those of a test of two minutes; `make fuzz` runs for an hour. docs/hostile_input.md has more.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER))
import figures
import run
from target import TARGETS, Target

run.register()
MODULES = sorted({target.module for target in TARGETS.values()})
# What targets need beside the package itself; a target is left out where it is not installed.
EXTRAS = {
    "arrays": ("av", "google_crc32c", "h5py"),
    "images": ("imagecodecs", "tifffile"),
    "weights": ("h5py", "safetensors"),
}
EXTRAS["service"] = ("fastapi",)


@pytest.mark.parametrize("module", MODULES)
def test_changed_input(module):
    for package in EXTRAS.get(module, ()):
        pytest.importorskip(package, reason="an extra is not installed")
    names = [name for name, target in TARGETS.items() if target.module == module and target.quick]
    results = run.fuzz(names, "0", counts={name: TARGETS[name].quick for name in names}, one_process=True)
    failures = [failure for result in results.values() for failure in result.failures]
    assert not failures, json.dumps(failures, indent=1)
    assert {name: result.cases for name, result in results.items()} == {name: TARGETS[name].quick for name in names}
    assert any(result.refused for result in results.values()) or module == "service"


FAULTS = '''
"""Readers with faults of each kind."""
import ctypes, os, pickle, time
import numpy as np
from target import target


def load():
    pass


def of(fault):
    def prepare(folder):
        return lambda rng: (lambda: None if rng is None else fault(folder))
    return prepare


def lines(_):
    raise ValueError("two\\nlines")


def used(_):
    try:
        np.full(2**30, 1, np.uint8)
    except MemoryError as error:
        raise ValueError("one line") from error


def reserved(_):
    try:
        np.empty(2**30, np.uint8)
    except MemoryError as error:
        raise ValueError("one line") from error


target("hang", quick=1)(of(lambda _: time.sleep(60)))
target("crash", quick=1)(of(lambda _: ctypes.string_at(0)))
target("memory", quick=1)(of(lambda _: bytearray(2**30)))
target("used", quick=1, allowed=(ValueError,))(of(used))
target("reserved", quick=1, allowed=(ValueError,))(of(reserved))
target("exception", quick=1)(of(lambda _: {}["a"]))
target("message", quick=1, allowed=(ValueError,))(of(lines))
target("program", quick=1)(of(lambda _: os.system("true")))
target("unpickled", quick=1)(of(lambda _: pickle.loads(pickle.dumps(Exception))))
target("written", quick=1)(of(lambda folder: open(folder.parents[2] / "a", "w")))
target("secret", quick=1)(of(lambda folder: open(folder.parents[1] / "outside" / "secret.png")))
'''
KINDS = {"hang": "hang", "crash": "crash", "memory": "memory", "exception": "exception", "message": "message"}
KINDS |= {"used": "memory", "reserved": None}
KINDS |= dict.fromkeys(("program", "unpickled", "written", "secret"), "execution")


def test_faults_are_found(tmp_path, monkeypatch):
    """Readers that do what none may do: each is noticed, with its kind."""
    (tmp_path / "attempts_faults.py").write_text(FAULTS)
    monkeypatch.setitem(os.environ, "PYTHONPATH", str(tmp_path))
    names = [*KINDS]
    for name in names:
        monkeypatch.setitem(TARGETS, name, Target(None, "faults", 1, 1, ()))
    monkeypatch.setattr(run, "SECONDS", 5)
    monkeypatch.setattr(run, "MEMORY", 2**28)
    results = run.fuzz(names, "0", counts=dict.fromkeys(names, 1), one_process=True)
    found = {name: [failure["kind"] for failure in results[name].failures] for name in names}
    assert found == {name: [kind] if kind else [] for name, kind in KINDS.items()}


def test_a_case_is_repeated_by_its_number(tmp_path):
    """The command that a failure prints does the same again."""
    command = [sys.executable, str(FOLDER / "worker.py"), "--one", "0", str(tmp_path / "a"), "idx", "5", "1", "9"]
    one, two = (subprocess.run(command, capture_output=True, text=True) for _ in range(2))
    assert "DataError" in one.stderr
    assert one.returncode == two.returncode and one.stderr.splitlines()[-1] == two.stderr.splitlines()[-1]


def test_the_table_of_the_docs(tmp_path):
    """The page keeps its text, and gets the figures of a run."""
    result = run.Result("coco", "7", read=3, refused=4, seconds=1.5, grown=2 * 10**6)
    content = figures.content({"coco": result}, "7", 90)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")
    figures.write_page(json.loads(json.dumps(content)), page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| coco | 7 | 3 | 4 | 0 | 2 | 2 |" in text and "seed 7." in text
    assert importlib.util.find_spec("figures") and figures.text(content).count("\n") == 2
    with pytest.raises(ValueError, match="has no"):
        figures.write_page(content, tmp_path / __file__)
