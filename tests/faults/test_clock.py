"""The system's clock is set forwards and backwards while a run trains, and between its processes."""

import json
import random
import time

import pytest
import recipe_runs
from recipe_runs import EPOCHS

from keras_maskrcnn.training.event_log import read_scalars

YEAR = 365 * 24 * 3600.0


def a_year_ahead():
    now = time.time
    time.time = lambda: now() + YEAR


def jumping():
    """Each look at the clock shows another time, up to a year before or after the right one."""
    now, jumps = time.time, random.Random(0)
    time.time = lambda: now() + jumps.uniform(-YEAR, YEAR)


@pytest.mark.slow
def test_a_clock_that_was_a_year_ahead_changes_nothing(undisturbed, run):
    one = run(before=a_year_ahead)
    assert one.wait_for("evaluation", 4)
    one.stop()
    again = run()
    again.complete()
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert len(list((again.output / "logs").glob("events*"))) == 2
    assert read_scalars(again.output / "logs") == read_scalars(undisturbed.output / "logs")


@pytest.mark.slow
def test_minutes_are_measured_with_a_clock_that_nobody_sets(run):
    one = run(length=("--minutes", 0.5, "--epochs", 3), before=jumping)
    one.complete()
    summary = json.loads((one.output / "summary.json").read_text())
    # A clock that jumps by months would end the run at once or never; a busy machine takes a step or a scoring longer.
    assert 25 < summary["fit_seconds"] < 300
    epochs = recipe_runs.epochs(one.output)
    assert epochs == list(range(len(epochs))) != []
