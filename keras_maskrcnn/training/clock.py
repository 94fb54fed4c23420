"""Training by the clock: what a run has taken, and runs that end on time with a learning rate that has fallen."""

import collections
import concurrent.futures
import contextlib
import itertools
import time

import keras
import numpy as np

from keras_maskrcnn.evaluation.any_model import scores
from keras_maskrcnn.training.callbacks import CocoEval

# Positions in `Clock.totals`.
USED, SCORING, TRAINING, IMAGES, STEPS, PAUSE, OVER = range(7)
# Largest share of the time that scoring may take, and that the pauses between epochs may.
OVERHEAD = 0.25
# The learning rate is set again when the share of the training time has grown by this much: on JAX this copies the
# state of the training into the model.
RESOLUTION = 0.001
# `steps_per_epoch` of a `fit` with a TimeBudget. Without a number, Keras would start the data again in each epoch.
ENDLESS = 10**9


class Clock(keras.callbacks.Callback):
    """Measures what a run takes. It must be the first callback of `fit`.

    Args:
        batch_size: images per step.
        now: function without arguments that returns the time in seconds.

    Attributes:
        totals: float64 [7], saved with the backup of a run: seconds of `fit`; seconds of scoring among them; seconds
            and images of the training steps without the first one of each process, which is traced; number of steps;
            seconds between two epochs without scoring; 1 if the time was over before the last epoch.
    """

    minutes = None

    def __init__(self, batch_size, now=time.perf_counter):
        super().__init__()
        self.batch_size = batch_size
        self.now = now
        self.totals = np.zeros(7)
        self._last = None
        self._traced = False

    @property
    def over(self):
        """Whether no time is left for further epochs."""
        return bool(self.totals[OVER])

    @property
    def steps(self):
        """Number of steps."""
        return int(self.totals[STEPS])

    def summary(self):
        """Seconds of `fit`, of scoring, and of training steps, and the images per second of these, as a dict."""
        seconds, images = self.totals[[TRAINING, IMAGES]].tolist()
        return {
            "fit_seconds": round(float(self.totals[USED]), 1),
            "scoring_seconds": round(float(self.totals[SCORING]), 1),
            "training_seconds": round(seconds, 1),
            "images_per_second": round(images / max(seconds, 1e-9), 2),
        }

    def tick(self):
        """Adds the seconds since the last call to those used, and returns them."""
        now = self.now()
        passed, self._last = now - self._last, now
        self.totals[USED] += passed
        return passed

    @contextlib.contextmanager
    def scoring(self):
        """Context whose time counts as scoring."""
        self.tick()
        try:
            yield
        finally:
            self.totals[SCORING] += self.tick()

    def on_train_begin(self, logs=None):
        """Starts the clock."""
        self._last, self._traced = self.now(), False

    def retraced(self):
        """Says that the next step is traced again: its time is not that of a step."""
        self._traced = False

    def on_epoch_begin(self, epoch, logs=None):
        """Counts the time between epochs."""
        self.tick()

    def on_train_batch_end(self, batch, logs=None):
        """Counts a step, and its time unless it was traced."""
        passed = self.tick()
        self.totals[STEPS] += 1
        if self._traced:
            self.totals[[TRAINING, IMAGES]] += passed, self.batch_size
        self._traced = True

    def on_epoch_end(self, epoch, logs=None):
        """Counts the time of the validation loss."""
        self.tick()

    def on_train_end(self, logs=None):
        """Counts the time since the last epoch."""
        self.tick()

    def due(self, last):
        """Whether an epoch may be scored; `last` is True if none follows it."""
        return True

    def expect(self, seconds):
        """Takes the time that scoring needs."""

    def check(self):
        """Called before and after each scoring."""


class TimeBudget(Clock):
    """Ends `fit` after a number of minutes, at the end of a schedule; the first callback of a `fit` without end.

    Everything between the start and the end of `fit` counts: tracing, the validation loss, scoring, saving. The
    schedule is a function of the share of the training time that is used, which is the time of the steps so far divided
    by this time plus what will be left for steps: the minutes, without those used, without what scoring and the pauses
    between the epochs to come are expected to take. On a machine of another speed the same share is reached after
    another number of steps, and the learning rate is the same. It does not change during tracing and scoring.

    Epochs have equal shares. There are fewer of them if the pauses between them would take more than a quarter of the
    time left. An epoch is not scored if scoring would then have taken more than a quarter of the time so far. If a
    single scoring would take more than a quarter of the minutes, none is done.

    `fit` needs `steps_per_epoch=ENDLESS`, and data that continues in the next epoch where an epoch was ended: an
    infinite `tf.data.Dataset` or Python generator, see `endless`. The optimizer needs a learning rate that is a number.

    Args:
        minutes: length of `fit`.
        schedule: function from the share, 0…1, to the learning rate.
        batch_size: images per step.
        now: function without arguments that returns the time in seconds.
    """

    def __init__(self, minutes, schedule, batch_size, now=time.perf_counter):
        super().__init__(batch_size, now)
        self.minutes = minutes
        self.schedule = schedule
        self.share = 0.0
        self._cost = 0.0  # seconds of one scoring
        self._rate_share = None  # the share of the current learning rate
        self._rounds = 1  # number of epochs that are still to end
        self._start = 0.0  # seconds of training before the epoch
        self._ended = False  # whether this callback has stopped the epoch
        self._first = True  # the pause after the first epoch includes tracing
        self._mark = None  # seconds without scoring at the last step, of later epochs

    @property
    def left(self):
        """Seconds left."""
        return max(60 * self.minutes - self.totals[USED], 0.0)

    def on_epoch_begin(self, epoch, logs=None):
        """Measures the pause since the last epoch."""
        super().on_epoch_begin(epoch, logs)
        if self._mark is not None:
            pause, before = self._without_scoring() - self._mark, self.totals[PAUSE]
            self.totals[PAUSE] = min(pause, before) if before else pause
        self._rounds = self.params["epochs"] - epoch
        if self.totals[PAUSE]:
            self._rounds = min(self._rounds, max(int(self.left * OVERHEAD / self.totals[PAUSE]), 1))
        self._start, self._ended = self.totals[TRAINING], False
        self._advance()

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the learning rate."""
        if self._rate_share is None or self.share - self._rate_share >= RESOLUTION:
            if hasattr(self.model, "jax_state_sync"):  # otherwise the running state would overwrite the rate
                self.model.jax_state_sync()
            self.model.optimizer.learning_rate = float(self.schedule(self.share))
            self._rate_share = self.share

    def on_train_batch_end(self, batch, logs=None):
        """Ends the epoch when its share is used, and the training when the time is over."""
        before = self.totals[TRAINING]
        super().on_train_batch_end(batch, logs)
        half_a_step = (self.totals[TRAINING] - before) / 2
        total = self._advance()
        self.totals[OVER] = total - self.totals[TRAINING] <= half_a_step
        end = self._start + (total - self._start) / self._rounds
        if self.over or self.totals[TRAINING] + half_a_step >= end:
            self.model.stop_training = self._ended = True

    def on_epoch_end(self, epoch, logs=None):
        """Lets the training go on after an epoch that was ended; adds the minutes used to the logs."""
        if not self._first:
            self._mark = self._without_scoring()
        self._first = False
        super().on_epoch_end(epoch, logs)
        if self._ended:
            self.model.stop_training = self.over
        if logs is not None:
            logs["minutes"] = self.totals[USED] / 60

    def due(self, last):
        """Whether scoring an epoch keeps to its share of the time."""
        limit = 60 * self.minutes * OVERHEAD
        if last:
            return self._cost <= limit
        used, scored = self.totals[[USED, SCORING]]
        return scored + self._cost <= (used + self._cost) * OVERHEAD and scored + 2 * self._cost <= limit

    def expect(self, seconds):
        """Takes the time that scoring needs."""
        self._cost = seconds

    def check(self):
        """Stops the training if no time is left for the steps of another epoch."""
        if self._training_left(rounds=1) <= 0:
            self.totals[OVER] = self.model.stop_training = True

    def _without_scoring(self):
        return self.totals[USED] - self.totals[SCORING]

    def _advance(self):
        """Updates the share, which never falls; returns the expected seconds of all steps."""
        spent = self.totals[TRAINING]
        total = spent + max(self._training_left(self._rounds), 0.0)
        self.share = max(self.share, spent / total if total else 1.0)
        return total

    def _training_left(self, rounds):
        """Seconds left for steps, if `rounds` epochs are still to end."""
        return self.left - rounds * self.totals[PAUSE] - self._scorings(rounds) * self._cost

    def _scorings(self, rounds):
        """Number of scorings that are expected in the coming epochs."""
        limit = 60 * self.minutes * OVERHEAD
        if not 0 < self._cost <= limit:
            return 0
        return min(rounds, max(int((limit - self.totals[SCORING]) / self._cost), 1))


class TimedEval(CocoEval):
    """A `CocoEval` whose time a `Clock` counts, and which scores the epochs that the clock allows.

    Args:
        clock: a `Clock`, which comes before it in the list of callbacks.
        dataset: any reader of samples.
        **options: of `CocoEval`.

    Attributes:
        current: whether `scores` are those of the last epoch. Scores of epochs before the first scoring are NaN.
    """

    def __init__(self, clock, dataset, **options):
        super().__init__(dataset, **options)
        self.clock = clock
        self.current = False

    def on_train_begin(self, logs=None):
        """With a time budget, measures scoring on one batch of images, because the rate depends on its time."""
        super().on_train_begin(logs)
        self.current = False
        if self.clock.minutes is None:
            return
        with self.clock.scoring():
            self._score_one_batch()  # traced
            start = self.clock.now()
            figures = self._score_one_batch()
            seconds = (self.clock.now() - start) * max(len(self.dataset) / self.batch_size, 1.0)
        self.clock.expect(seconds)
        if not self.clock.due(last=True):
            print(f"scoring takes about {seconds / 60:.1f} min: it is left until after the training")
        self.scores = {name: float("nan") for name in figures if name != "per_class"} | {"per_class": {}}

    def on_epoch_end(self, epoch, logs=None):
        """Scores if the epoch is due; counts the time."""
        self.clock.check()
        start = self.clock.now()
        with self.clock.scoring():
            super().on_epoch_end(epoch, logs)
        if self.current:
            self.clock.expect(self.clock.now() - start)
        self.clock.check()

    def _due(self, epoch):
        if self.clock.minutes is None:
            self.current = super()._due(epoch)
        else:
            self.current = self.clock.due(self._last(epoch))
        return self.current

    def _score_one_batch(self):
        return scores(
            self.model,
            self.dataset,
            self.kinds,
            max_detections=self.max_detections,
            batch_size=self.batch_size,
            limit=self.batch_size,
        )


def until_over(budget, batches, callbacks=()):
    """Arguments of a `fit` that ends when a `TimeBudget` is over: `x`, `steps_per_epoch` and `callbacks`."""
    return {"x": endless(batches), "steps_per_epoch": ENDLESS, "callbacks": [budget, *callbacks]}


def endless(batches):
    """Endless batches that `fit` may leave in the middle of an epoch and continue in the next.

    Args:
        batches: a result of `data.batches(..., repeat=True)`.

    Returns:
        a `tf.data.Dataset` as it is; for a `keras.utils.PyDataset`, whose iteration Keras does not continue after an
        epoch that was ended early, a generator of its batches, prepared by as many threads.
    """
    return _prepared(batches) if isinstance(batches, keras.utils.PyDataset) else batches


def _prepared(batches):
    with concurrent.futures.ThreadPoolExecutor(batches.workers) as pool:
        ahead = 2 * batches.workers
        waiting = collections.deque(pool.submit(batches.__getitem__, index) for index in range(ahead))
        for index in itertools.count(ahead):
            yield waiting.popleft().result()
            waiting.append(pool.submit(batches.__getitem__, index))
