"""Scripts of `train/` in this process, where they end before their work begins: a new one is long in starting."""

import pathlib
import runpy
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "train"


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Function from a script's name and its arguments to a `CompletedProcess`."""

    def ended(script, *arguments):
        monkeypatch.syspath_prepend(str(FOLDER))
        monkeypatch.setattr(sys, "argv", [str(FOLDER / f"{script}.py"), *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(sys.argv[0], run_name="__main__")
        return subprocess.CompletedProcess(sys.argv, end.value.code or 0, *capsys.readouterr())

    return ended
