"""Ctrl-C at random moments: one line, exit code 130, and a run that continues."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import recipe_runs
from recipe_runs import ARGUMENTS, EPOCHS, PHASES, SCRIPT


@pytest.mark.slow
def test_ctrl_c_in_each_phase_is_one_line_and_the_run_continues(undisturbed, run):
    draw, lengths = random.Random(0), {}
    for phase, seconds in undisturbed.durations():
        lengths[phase] = min(seconds, lengths.get(phase, seconds))
    for phase in PHASES:
        one = run()
        one.wait_in(phase, 1, draw.uniform(0, lengths.get(phase, 0)))
        one.stop(signal.SIGINT)
        code, _, errors = one.end()
        if code:  # otherwise it came after the end
            [line] = errors.strip().splitlines()
            assert code == 130 and line.startswith("interrupted") and "the same command" in line, errors
        else:
            assert phase == "summary"
    again = run()
    again.complete()
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert recipe_runs.files(again.output) == recipe_runs.files(undisturbed.output)


@pytest.mark.slow
def test_ctrl_c_while_a_program_starts_is_no_traceback(tmp_path):
    """During the imports of the recipe and of a verb."""
    draw = random.Random(1)
    recipe = [SCRIPT, "--output", tmp_path / "run", *ARGUMENTS]
    verb = ["-m", "keras_maskrcnn", "evaluate", "--dataset", "shapes", "--model", "nuclei"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    for number in range(10):
        words = [str(word) for word in (sys.executable, *(verb if number % 2 else recipe))]
        process = subprocess.Popen(
            words,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        time.sleep(draw.uniform(0.5, 5))
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=recipe_runs.SECONDS)[1]
        assert process.returncode in (130, -signal.SIGINT), errors
        assert "Traceback" not in errors and len(errors.strip().splitlines()) <= 1, errors
