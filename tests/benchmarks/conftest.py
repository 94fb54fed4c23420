"""Scripts of `benchmarks/` in the process of the tests: starting a new one takes seconds."""

import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))


@pytest.fixture(scope="session")
def run_here(run_script):
    """Function from a script's name and its arguments to a `CompletedProcess`."""
    return lambda script, *arguments: run_script(FOLDER / f"{script}.py", *arguments)
