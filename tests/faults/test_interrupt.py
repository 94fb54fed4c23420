"""Ctrl-C at random moments: one line, exit code 130, and a run that continues."""

import random
import signal
import subprocess
import sys
import time

import pytest
import recipe_runs
from recipe_runs import ARGUMENTS, EPOCHS, PHASES, SCRIPT

# Runs in each process at the end of the interpreter's own imports.
SITE = r"""
import os
os.write(1, b"started\n")
"""


def interrupted(run, phase, seconds):
    """Whether Ctrl-C in a phase was a line and exit code 130; else it came when the run had ended."""
    one = run()
    one.wait_in(phase, 1, seconds)
    one.stop(signal.SIGINT)
    code, output, errors = one.end()
    print(phase, f"{seconds:.2f}", code, errors.strip())
    if code == 0:
        assert "SavedModel " in output or "holds a finished run" in output, output  # its last lines
        return False
    [line] = errors.strip().splitlines()
    assert code == 130 and line.startswith("interrupted"), errors
    assert "the same command" in line or "holds a finished run" in line, errors
    return True


@pytest.mark.slow
def test_ctrl_c_in_each_phase_is_one_line_and_the_run_continues(undisturbed, run):
    draw, lengths = random.Random(0), {}
    for phase, seconds in undisturbed.durations():
        lengths[phase] = min(seconds, lengths.get(phase, seconds))
    met = [phase for phase in PHASES if interrupted(run, phase, draw.uniform(0, lengths.get(phase, 0)))]
    # The summary takes less time than this process may have to wait for a processor.
    assert [*PHASES][:-1] == met[: len(PHASES) - 1]
    again = run()
    again.complete()
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert recipe_runs.files(again.output) == recipe_runs.files(undisturbed.output)


@pytest.mark.slow
def test_ctrl_c_while_a_program_starts_is_no_traceback(tmp_path):
    """During the imports of the recipe and of a verb, after those of the interpreter itself."""
    draw = random.Random(1)
    recipe = [SCRIPT, "--output", tmp_path / "run", *ARGUMENTS]
    verb = ["-m", "keras_maskrcnn", "evaluate", "--dataset", "shapes", "--model", "nuclei"]
    (tmp_path / "sitecustomize.py").write_text(SITE)
    for number in range(10):
        words = [str(word) for word in (sys.executable, *(verb if number % 2 else recipe))]
        process = subprocess.Popen(
            words,
            env=recipe_runs.environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout.readline() == "started\n"
        time.sleep(draw.uniform(0.5, 5))
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=recipe_runs.SECONDS)[1]
        assert process.returncode in (130, -signal.SIGINT), errors
        assert "Traceback" not in errors and len(errors.strip().splitlines()) <= 1, errors
