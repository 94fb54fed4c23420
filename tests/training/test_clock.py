"""Training by the clock, with a clock that only the tests move."""

import itertools
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.training import warmup_cosine
from keras_maskrcnn.training.backup import Backup
from keras_maskrcnn.training.callbacks import TimeLine
from keras_maskrcnn.training.clock import ENDLESS, Clock, TimeBudget, TimedEval, endless

ROOT = pathlib.Path(__file__).parents[2]
X, Y = np.ones((2, 1), "float32"), np.ones((2, 1), "float32")


class Machine:
    """A clock, and the seconds that things take on a machine."""

    def __init__(self, step=1.0, trace=20.0, image=0.1, pause=1.0):
        self.seconds, self.step, self.trace, self.image, self.pause = 0.0, step, trace, image, pause

    def __call__(self):
        return self.seconds


class Reader(list):
    class_names = ("cat",)


def sample():
    mask = np.zeros((1, 32, 32), bool)
    mask[0, 4:20, 4:20] = True
    objects = {"boxes": np.array([[4, 4, 20, 20]], np.float32), "labels": np.ones(1, np.int32), "masks": mask}
    image = np.zeros((32, 32, 3), np.uint8)
    return {**objects, "image": image, "crowd": np.zeros(1, bool), "image_id": "a", "source": "a.png"}


@keras.saving.register_keras_serializable(package="test_clock")
class Toy(keras.Sequential):
    """A model whose steps and detections take the time of a machine; it notes the learning rate of each step."""

    loss_names = ()

    def train_step(self, *arguments):
        self.rates.append(float(self.optimizer.learning_rate))
        self.machine.seconds += self.machine.step + (self.machine.trace if len(self.rates) == self.first else 0)
        if len(self.rates) == self.last:
            raise KeyboardInterrupt
        return {"loss": 0.5}

    def detect(self, images, score_threshold=0.5, max_detections=100):
        self.machine.seconds += self.machine.image * len(images)
        found = {k: v for k, v in sample().items() if k in ("boxes", "labels", "masks")}
        return [{**found, "scores": np.ones(1, np.float32)} for _ in images]


class Pause(keras.callbacks.Callback):
    """What saving takes; notes the steps and the time at the end of each epoch."""

    def __init__(self, machine):
        super().__init__()
        self.machine, self.ends, self.aps = machine, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.machine.seconds += self.machine.pause
        self.ends.append(len(self.model.rates))
        self.aps.append(logs["val_segm_AP"])


class Run:
    """A `fit` of `minutes` on a machine, with the share itself as the learning rate."""

    def __init__(
        self, machine, minutes=10, epochs=10, images=20, folder=None, last=None, schedule=lambda share: share, verbose=0
    ):
        self.model = Toy([keras.Input((1,)), keras.layers.Dense(1)])
        self.model.machine, self.model.rates, self.model.first, self.model.last = machine, [], 1, last
        self.model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
        self.model.optimizer.build(self.model.trainable_variables)
        self.budget = TimeBudget(minutes, schedule, 2, now=machine)
        self.scores = TimedEval(self.budget, Reader([sample()] * images))
        self.pause = Pause(machine)
        callbacks, done = [self.budget, self.scores, TimeLine(self.budget), self.pause], 0
        if folder:
            backup = Backup(folder, self.budget.totals)
            done = backup.restore(self.model)
            callbacks.append(backup)
        self.history = self.model.fit(
            batches(),
            epochs=epochs,
            initial_epoch=done,
            steps_per_epoch=ENDLESS,
            verbose=verbose,
            callbacks=callbacks,
        ).history

    @property
    def rates(self):
        return np.array(self.model.rates)


def batches():
    yield from itertools.repeat((X, Y))


def test_the_rate_is_the_schedule_of_the_share_and_the_run_ends_on_time():
    machine = Machine()
    run = Run(machine)
    # 600 s less 20 s of tracing, 10 pauses, 10 scorings of 2 s and what is measured before: 16 images, 1.6 s.
    assert machine.seconds == pytest.approx(600, abs=1.5)
    assert len(run.rates) == pytest.approx(600 - 20 - 10 - 20 - 1.6, abs=2)
    assert run.rates[0] == run.rates[1] == 0  # the time of tracing is not one of training
    steps = np.arange(len(run.rates))
    np.testing.assert_allclose(run.rates[1:], steps[:-1] / steps[-1], atol=0.03)
    assert np.all(np.diff(run.rates) >= 0) and run.rates[-1] > 0.99
    assert np.diff(run.pause.ends).std() < 3 and len(run.pause.ends) == 10
    assert run.scores.current and run.history["val_segm_AP"] == [1.0] * 10
    assert run.history["minutes"][-1] == pytest.approx(10, abs=0.1)


def test_a_machine_three_times_slower_follows_the_same_schedule():
    schedule = warmup_cosine(1.0, 1.0, warmup=0.05, hold_steps=0.3, final_factor=0.01)
    fast, slow = (
        Run(Machine(step, 20 * step, 0.1 * step, step), schedule=lambda share: float(schedule(share))).rates
        for step in (1.0, 3.0)
    )
    assert len(fast) == pytest.approx(600 - 52, abs=2) and len(slow) == pytest.approx((600 - 3 * 52) / 3, abs=2)
    places = np.linspace(0.07, 1, 50)
    curves = [np.interp(places, np.linspace(0, 1, len(rates) - 1), rates[1:]) for rates in (fast, slow)]
    np.testing.assert_allclose(curves[1], curves[0], atol=0.03)
    assert fast.max() == slow.max() == 1 and max(fast[-1], slow[-1]) < 0.02
    for rates in (fast, slow):  # the warm-up, without the step that is traced
        assert np.argmax(rates == 1) - 1 == pytest.approx(0.05 * len(rates), abs=2)


def test_slow_scoring_is_done_less_often_and_takes_a_quarter_of_the_time():
    machine = Machine(image=1.5)  # 30 s for 20 images, 300 s in 10 epochs
    run = Run(machine)
    assert machine.seconds == pytest.approx(600, abs=1.5)
    assert run.budget.summary()["scoring_seconds"] <= 150
    # Measuring takes 16 images or 24 s, so that 126 s are left: four scorings, one after the last epoch.
    assert np.isnan(run.pause.aps[0]) and run.pause.aps[-1] == 1
    assert run.budget.summary()["scoring_seconds"] >= 24 + 3 * 30
    assert run.scores.current and len(run.pause.ends) == 10 and run.rates[-1] > 0.99


def test_scoring_that_takes_more_than_a_quarter_is_left_out(capsys):
    machine = Machine(image=10)
    run = Run(machine)
    assert machine.seconds == pytest.approx(600, abs=1.5)
    assert not run.scores.current and np.isnan(run.history["val_segm_AP"]).all()
    assert run.rates[-1] > 0.99
    assert "scoring takes about 3.3 min: it is left until after the training" in capsys.readouterr().out


def test_scoring_that_becomes_slow_costs_one_scoring():
    class Busy(Machine):
        image = property(lambda self: 0.1 if self.seconds < 500 else 4.0, lambda self, value: None)

    machine = Busy()
    run = Run(machine)
    assert machine.seconds < 600 + 80
    assert run.scores.current and len(run.pause.ends) in (9, 10)


def test_long_pauses_make_fewer_epochs():
    machine = Machine(pause=40)
    run = Run(machine)
    assert machine.seconds == pytest.approx(600, abs=41)
    assert 2 < len(run.pause.ends) < 8 and run.rates[-1] > 0.99
    assert run.scores.current


def test_slow_steps_end_the_run_after_half_a_step_too_much():
    machine = Machine(step=50, trace=0)
    run = Run(machine, minutes=3)
    assert machine.seconds <= 180 + 25 + 5
    assert len(run.rates) <= 4 and len(run.pause.ends) <= 4
    assert run.budget.over and run.scores.current


def test_a_run_that_was_killed_uses_only_the_time_that_is_left(tmp_path):
    whole = Run(Machine())
    first = Machine()
    with pytest.raises(KeyboardInterrupt):
        Run(first, folder=tmp_path, last=300)
    second = Machine()
    run = Run(second, folder=tmp_path)
    ends = np.array(whole.pause.ends)
    assert Backup(tmp_path).epoch() == 10 and len(run.pause.ends) == 10 - np.searchsorted(ends, 300)
    done = ends[ends < 300][-1]
    # Of the first process, the epochs that are complete count.
    assert second.seconds == pytest.approx(600 - first.seconds + 300 - done, abs=8)
    assert run.rates[0] == pytest.approx(whole.rates[done], abs=0.03)  # the second process traces again
    assert np.all(np.diff(run.rates) >= 0) and run.rates[-1] > 0.99
    assert run.budget.totals[0] == pytest.approx(600, abs=8)
    assert run.budget.steps == done + len(run.rates)


def test_nothing_is_trained_when_the_time_of_a_restored_run_is_over(tmp_path):
    run = Run(Machine(step=50, trace=0), minutes=3, folder=tmp_path)
    assert len(run.pause.ends) < 10
    budget = TimeBudget(3, lambda share: share, 2)
    Backup(tmp_path, budget.totals).restore(run.model)
    assert budget.over and budget.steps == len(run.rates)


def test_a_clock_counts_what_a_run_takes():
    machine = Machine()
    clock = Clock(2, now=machine)
    model = Toy([keras.Input((1,)), keras.layers.Dense(1)])
    model.machine, model.rates, model.first, model.last = machine, [], 1, None
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    scores = TimedEval(clock, Reader([sample()] * 10))
    callbacks = [clock, scores, Pause(machine)]
    model.fit(batches(), epochs=3, steps_per_epoch=4, verbose=0, callbacks=callbacks)
    found = clock.summary()
    assert found == {
        "fit_seconds": 20 + 12 + 3 * 1 + 3,
        "scoring_seconds": 3.0,
        "training_seconds": 11.0,
        "images_per_second": 2.0,
    }
    assert clock.steps == 12 and scores.current and not clock.over


# The gradient is 1, so that a step moves the weight by the learning rate; the loss is the weight.
COMPILED = """
    import itertools
    import keras, numpy as np
    from keras import ops
    from keras_maskrcnn.training.clock import ENDLESS, TimeBudget

    seconds, traces, rates, losses = [0.0], [], [], []

    class Model(keras.Sequential):
        def train_step(self, *arguments):
            traces.append(1)
            return super().train_step(*arguments)

    class Second(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seconds[0] += 1

    class Notes(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(rate[0])
            total = logs["loss"] * (batch + 1)  # Keras logs the mean over the epoch so far
            losses.append(total - (self.total if batch else 0.0))
            self.total = total

    def schedule(share):
        rate[0] = 0.1 + share
        return rate[0]

    def batches():
        yield from itertools.repeat((np.ones((1, 1), "float32"),) * 2)

    rate = [None]
    model = Model([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.5), loss=lambda y, p: ops.mean(p, axis=-1), jit_compile=True)
    budget = TimeBudget(0.5, schedule, 1, now=lambda: seconds[0])
    model.fit(
        batches(), epochs=4, steps_per_epoch=ENDLESS, verbose=0, callbacks=[Second(), budget, Notes()],
        validation_data=(np.ones((1, 1)),) * 2,
    )
    assert len(rates) == 30 and rates[-1] > 1
    np.testing.assert_allclose(-np.diff(losses), rates[:-1], atol=1e-5)
    assert len(traces) <= 2, traces
"""


def test_a_compiled_step_uses_the_rate_of_the_clock_and_is_traced_once():
    exec(textwrap.dedent(COMPILED), {})


def test_a_compiled_step_on_jax_uses_the_rate_of_the_clock():
    program = [sys.executable, "-c", textwrap.dedent(COMPILED)]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]


def test_a_saved_model_has_the_rate_at_which_the_time_was_over(tmp_path):
    run = Run(Machine(step=10), minutes=2)
    run.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert float(again.optimizer.learning_rate) == pytest.approx(run.rates[-1]) != 0.5


def test_a_schedule_in_the_optimizer_is_refused():
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        model.fit(batches(), steps_per_epoch=2, verbose=0, callbacks=[TimeBudget(1, lambda share: share, 1)])


@pytest.mark.parametrize("terminal", [False, True])
def test_the_line_has_the_time_left_and_the_scores_so_far(terminal, capsys):
    run = Run(Machine(step=20, trace=0), minutes=4, epochs=2, verbose=1 if terminal else 2)
    assert len(run.pause.ends) == 2
    printed = capsys.readouterr().out
    if terminal:
        first, *_, last = lines = [line.rstrip() for line in printed.split("\r") if line]
        assert first == "epoch 1/2 - 3.6 of 4 min left - loss 0.5"
        assert any(re.fullmatch(r"epoch 2/2 - .* min left - bbox AP 1 - segm AP 1 - loss 0\.5", line) for line in lines)
        assert last.startswith("\033[Kepoch 2/2 - ")
    else:
        first, last = printed.splitlines()
        assert re.fullmatch(r"epoch 1/2 - 1\.\d of 4 min left - steps 6 - loss 0 - bbox AP 1 - segm AP 1", first)
        assert last.startswith("epoch 2/2 - 0.0 of 4 min left - steps ")


def test_endless_batches_of_numpy_continue_after_an_epoch_that_was_ended():
    shapes = data.Shapes(5, image_size=(32, 32))
    options = {"repeat": True, "mask_size": 14, "workers": 2}
    numpy = data.batches(shapes, (32, 32), 1, backend="numpy", **options)
    found = [int(x["image_index"][0]) for x, _ in itertools.islice(endless(numpy), 12)]
    assert found == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    tf = data.batches(shapes, (32, 32), 1, backend="tf", **options)
    assert endless(tf) is tf
