"""`kill -9` at random moments of a run: started again, it ends as a run that was not stopped."""

import collections
import random
import signal

import pytest
import recipe_runs
from recipe_runs import EPOCHS

from keras_maskrcnn.training.event_log import read_scalars

# Where the processes of a run are killed: nine in the epochs, the others after the last one.
DURING_EPOCHS = ("training", "evaluation", "best", "backup")
AFTER = ("model", "export", "pictures", "summary")
KILLS = 20


def moments(seed):
    """Phases, and positions in each of them as a share of its length, of the kills one after the other."""
    draw = random.Random(seed)
    epochs = [draw.choice(DURING_EPOCHS) for _ in range(KILLS // 2)]
    after = sorted((draw.choice(AFTER) for _ in range(KILLS - len(epochs))), key=AFTER.index)
    return [(phase, draw.random()) for phase in (*epochs, *after)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_twenty_kills_leave_no_trace(undisturbed, run, seed):
    import time

    lengths = collections.defaultdict(list)
    for phase, seconds in undisturbed.durations():
        lengths[phase].append(seconds)
    draw, killed = random.Random(seed + 1), []
    for phase, share in moments(seed):
        one = run()
        # The first epoch of a process is traced; about every second kill in an epoch leaves one more complete epoch.
        number = draw.choice((1, 2)) if phase in DURING_EPOCHS else 1
        if one.wait_for(phase, number):
            time.sleep(share * min(lengths[phase]))
        code = one.stop()
        killed.append((phase, number, round(share, 2), code, one.phases()[-1:]))
        assert code in (-signal.SIGKILL, 0), one.end()[2]
    print(*killed, sep="\n")
    again = run()
    again.complete()
    assert sum(code == -signal.SIGKILL for *_, code, _ in killed) >= KILLS - 2
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert recipe_runs.files(again.output) == recipe_runs.files(undisturbed.output)
    assert read_scalars(again.output / "logs") == read_scalars(undisturbed.output / "logs")
