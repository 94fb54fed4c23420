"""Learning-rate range test: the loss while the rate rises, and rates to train with (Smith 2017, section 3.3)."""

import contextlib
import dataclasses
import itertools
import json
import math
import pathlib

import keras
import numpy as np

from keras_maskrcnn.backend import is_tensorflow
from keras_maskrcnn.backend.keras_internals import rate_source
from keras_maskrcnn.training.backup import variables


@dataclasses.dataclass(frozen=True)
class LRFinder:
    """Trains for a few steps with an exponentially rising learning rate, and puts the model back afterwards.

    Step i of n has the rate `low * (high / low) ** (i / (n - 1))`. The sweep ends early when the loss diverges: it is
    not finite, or its smoothed value exceeds `divergence` times the lowest so far.

    Args:
        low: first rate.
        high: last rate.
        steps: number of steps.
        smoothing: weight s of the past in the moving average of the loss, `a = s * a + (1 - s) * loss`, which is
            divided by `1 - s ** i` after i losses, so that it does not start at 0 (Kingma and Ba 2015, section 3).
        divergence: multiple of the lowest smoothed loss at which the sweep ends.

    Raises:
        ValueError: for rates that do not rise from above 0, fewer than 2 steps, a smoothing outside 0 … below 1, or a
            divergence of 1 or less.
    """

    low: float = 1e-6
    high: float = 1.0
    steps: int = 100
    smoothing: float = 0.9
    divergence: float = 4.0

    def __post_init__(self):
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"low={self.low} and high={self.high} must be rates that rise from above 0")
        if self.steps < 2:
            raise ValueError(f"steps={self.steps} must be at least 2")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing={self.smoothing} must be at least 0 and below 1")
        if not self.divergence > 1:
            raise ValueError(f"divergence={self.divergence} must be above 1")

    def run(self, model, batches):
        """Sweeps the learning rate of a compiled model.

        Afterwards weights, batch statistics, optimizer, metrics, seed generators and the position in the batches are
        those from before, bit for bit, also if it was interrupted. Class names and canvas of the batches become the
        model's where it has none, as in `fit`.

        Args:
            model: a compiled model. A schedule in its optimizer is replaced during the sweep.
            batches: a result of `data.batches`, or any iterable of (x, y); it is read again where it ends.

        Returns:
            `Sweep`.

        Raises:
            ValueError: the model is not compiled or runs several steps at once, there is no batch, or the optimizer has
                a schedule on another backend than TensorFlow.
        """
        if not model.compiled:
            raise ValueError("compile the model before the sweep: it is one of the optimizer's rate")
        if model.steps_per_execution != 1:
            raise ValueError(f"steps_per_execution={model.steps_per_execution}: the sweep needs 1, each step's loss")
        if hasattr(model, "adopt"):
            model.adopt(batches)
        model.optimizer.build(model.trainable_variables)
        rates = np.geomspace(self.low, self.high, self.steps)
        with _put_back(model, batches), _settable_rate(model) as set_rate:
            losses = self._losses(model, batches, rates, set_rate)
        return self._sweep(rates, losses)

    def smooth(self, losses):
        """The moving average after each loss: float64 `[n]`."""
        found, average = np.zeros(len(losses)), 0.0
        for index, loss in enumerate(losses):
            average = self.smoothing * average + (1 - self.smoothing) * loss
            found[index] = average / (1 - self.smoothing ** (index + 1))
        return found

    def _losses(self, model, batches, rates, set_rate):
        """The loss at each rate until it diverges: a list; the iterator over the batches ends with this call."""
        losses = []
        for rate, batch in zip(rates, _endless(batches), strict=False):
            set_rate(rate)
            losses.append(_loss(model, batch))
            if self._diverged(losses):
                break
        return losses

    def _diverged(self, losses):
        smoothed = self.smooth(losses)
        return not smoothed[-1] <= self.divergence * smoothed.min()  # also for NaN

    def _sweep(self, rates, losses):
        """The result, without a last loss that is not finite; the average of the first losses is not settled yet."""
        diverged = self._diverged(losses)
        if not math.isfinite(losses[-1]):
            losses = losses[:-1]
        settled = min(math.ceil(1 / (1 - self.smoothing)) - 1, self.steps // 5)
        return Sweep(rates[: len(losses)], np.array(losses), self.smooth(losses), diverged, settled)


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found.

    Attributes:
        rates: float64 `[n]`, rising.
        losses: float64 `[n]`, the loss of each step before its update.
        smoothed: float64 `[n]`, their moving average.
        diverged: whether the sweep ended because the loss diverged.
        first: position of the first average that has seen enough losses; the ones before it are not looked at.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool
    first: int = 0

    @property
    def steepest(self):
        """The rate at which the smoothed loss falls fastest per factor of the rate; None if it never falls."""
        losses, rates = self.smoothed[self.first :], self.rates[self.first :]
        if len(losses) < 2:
            return None
        slope = np.gradient(losses, np.log(rates))
        place = int(np.argmin(slope))
        return float(rates[place]) if slope[place] < 0 else None

    @property
    def valley(self):
        """The rate in the middle of the longest falling subsequence of the smoothed loss; None below three losses.

        A subsequence leaves out what rises in between; the idea is that of fastai's suggestion of this name
        (`fastai/callback/schedule.py`). It lies at the middle of the descent, where `steepest` may lie at its start.
        """
        places = _longest_fall(self.smoothed[self.first :])
        return float(self.rates[self.first + places[len(places) // 2]]) if len(places) >= 3 else None

    def plot(self, path):
        """Writes a picture of the curve with both suggestions; the suffix selects the format. Returns the path."""
        from keras_maskrcnn import plots

        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        marks = {"steepest": self.steepest, "valley": self.valley}
        plots.learning_rates(self.rates, self.losses, self.smoothed, marks).savefig(path, dpi=110)
        return path

    def save(self, folder):
        """Writes `lr_finder.json`, `lr_finder.csv` and `lr_finder.png` to a folder; returns the path of the picture."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        columns = {"learning_rate": self.rates, "loss": self.losses, "smoothed_loss": self.smoothed}
        content = {"steepest": self.steepest, "valley": self.valley, "diverged": self.diverged}
        content |= {name: values.tolist() for name, values in columns.items()}
        (folder / "lr_finder.json").write_text(json.dumps(content, indent=2) + "\n")
        rows = np.column_stack(list(columns.values()))
        np.savetxt(folder / "lr_finder.csv", rows, "%.8g", ",", header=",".join(columns), comments="")
        return self.plot(folder / "lr_finder.png")

    def __str__(self):
        named = {"steepest": self.steepest, "valley": self.valley}
        found = ", ".join(f"{name} {rate:.2g}" for name, rate in named.items() if rate is not None)
        end = "diverged at" if self.diverged else "had not diverged at"
        reached = f"the loss {end} {self.rates[-1]:.2g}" if len(self.rates) else "the first loss was not finite"
        return f"learning rate: {found or 'no suggestion, the loss did not fall'} ({reached})"


def _longest_fall(values):
    """Positions of the longest strictly falling subsequence, the first that is complete of equally long ones."""
    lengths, before = np.ones(len(values), int), np.full(len(values), -1)
    for place, value in enumerate(values):
        higher = np.flatnonzero(values[:place] > value)
        if higher.size:
            before[place] = higher[np.argmax(lengths[higher])]
            lengths[place] = lengths[before[place]] + 1
    places = [int(np.argmax(lengths))] if len(values) else []
    while places and before[places[-1]] >= 0:
        places.append(int(before[places[-1]]))
    return places[::-1]


def _loss(model, batch):
    """The loss of one training step; NaN for a step that was skipped because it was not finite."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
    logs = model.train_on_batch(x, y, weight, return_dict=True)
    return math.nan if logs.get("skipped_steps") else float(logs["loss"])


class _Rate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that returns a variable, whatever the step."""

    def __init__(self):
        super().__init__()
        self.rate = keras.Variable(0.0, dtype="float32", trainable=False)

    def __call__(self, step):
        """The rate: a float32 scalar."""
        return self.rate.value


@contextlib.contextmanager
def _settable_rate(model):
    """Context of a function that sets the rate of the model's optimizer, also of one with a schedule."""
    optimizer, given = model.optimizer, rate_source(model.optimizer)
    if isinstance(given, keras.Variable):  # `_put_back` restores it
        yield lambda rate: setattr(optimizer, "learning_rate", float(rate))
        return
    if not is_tensorflow():  # the compiled step would take the variable of `_Rate` for a constant
        raise ValueError("on this backend the sweep needs an optimizer whose learning rate is a number, not a schedule")
    sweep = _Rate()
    try:
        _replace_rate(model, sweep)
        yield sweep.rate.assign
    finally:
        _replace_rate(model, given)


def _replace_rate(model, source):
    model.optimizer.learning_rate = source
    model.make_train_function(force=True)  # a step that is traced already has the other one


@contextlib.contextmanager
def _put_back(model, batches):
    """Context after which the model and the position in the batches are as before."""
    kept = [*variables(model), *([model.skipped_images] if hasattr(model, "skipped_images") else [])]
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in kept]
    rows = getattr(batches, "rows", None)
    start = getattr(rows, "start", None)
    try:
        yield
    finally:
        for variable, value in zip(kept, values, strict=True):
            variable.assign(value)
        if start is not None:
            rows.start = start


def _endless(batches):
    """The batches again and again; a `PyDataset` by position, as `fit` reads it."""
    if isinstance(batches, keras.utils.PyDataset):
        count = batches.num_batches
        for place in itertools.count() if count is None else itertools.cycle(range(count)):
            yield batches[place]
    while True:
        batch = None
        for batch in batches:
            yield batch
        if batch is None:
            raise ValueError("the batches hold none that is left to read: the sweep needs some that can be read again")
