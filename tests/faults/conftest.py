"""Runs that the tests of faults are compared with."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import pytest
import recipe_runs


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A finished `recipe_runs.Run` without a fault."""
    run = recipe_runs.Run(tmp_path_factory.mktemp("undisturbed") / "run")
    run.complete()
    return run


@pytest.fixture
def run(tmp_path):
    """Function that starts a `recipe_runs.Run` in the folder of the test; those still running at its end are killed."""
    started = []

    def start(*arguments, **options):
        started.append(recipe_runs.Run(tmp_path / "run", *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()
