"""`kill -9` at random moments of a run: started again, it ends as a run that was not stopped."""

import collections
import itertools
import random
import signal

import pytest
import recipe_runs
from recipe_runs import AFTER, EPOCHS, IN_EPOCHS

from keras_maskrcnn.training.event_log import read_scalars


def moments(seed, kills):
    """Lists of a phase, which of those of its name in the process it is, and a position in it from 0 to 1.

    Half of the processes are killed in the epochs, the others after the last one.
    """
    draw, half, after = random.Random(seed), kills // 2, list(AFTER)
    phases = list(itertools.islice(itertools.cycle(IN_EPOCHS), half))
    draw.shuffle(phases)
    phases += sorted(itertools.islice(itertools.cycle(after), kills - half), key=after.index)
    # About every second kill in an epoch leaves one more complete epoch.
    return [(phase, draw.choice((1, 2)) if phase in IN_EPOCHS else 1, draw.random()) for phase in phases]


def killed(run, phase, number, share, lengths, **options):
    """Whether a process was killed: at the share of a phase that began for the `number`-th time."""
    one = run(**options)
    one.wait_in(phase, number, share * min(lengths[phase]))
    code = one.stop()
    assert code in (-signal.SIGKILL, 0), one.end()[2]
    print(phase, number, f"{share:.2f}", code, one.phases()[-1:])
    return code != 0


def check(run, whole, kills, seed, **options):
    """Kills processes of a run at random moments, completes it, and compares it with one that was not stopped."""
    lengths = collections.defaultdict(list)
    for phase, seconds in whole.durations():
        lengths[phase].append(seconds)
    lengths["summary"] = [0.01]
    count = sum(killed(run, *moment, lengths, **options) for moment in moments(seed, kills))
    again = run(**options)
    again.complete()
    print(f"{count} of {kills} processes were killed")
    recipe_runs.check_equal(again.output, whole.output)
    assert count >= 0.9 * kills  # the others had ended
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert recipe_runs.files(again.output) == recipe_runs.files(whole.output)
    assert read_scalars(again.output / "logs") == read_scalars(whole.output / "logs")


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(undisturbed, run):
    check(run, undisturbed, kills=20, seed=0)


@pytest.mark.slow
def test_kills_of_compiled_steps_leave_no_trace(run, tmp_path):
    whole = recipe_runs.Run(tmp_path / "whole", graph=True)
    whole.complete()
    check(run, whole, kills=4, seed=1, graph=True)
