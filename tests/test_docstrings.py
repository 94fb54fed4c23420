"""The examples in docstrings give the results that they show."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "keras_maskrcnn").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    examples = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    assert examples
    runner = doctest.DocTestRunner(verbose=False)
    shown = []
    for test in examples:
        runner.run(test, out=shown.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(shown)
