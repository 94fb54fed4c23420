"""Lengths of the trainings of the assignment: steps, or shares of `--minutes` by a clock that only the test moves."""

import argparse
import pathlib
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "train"))

from cis680_report.setup import Setup
from keras_maskrcnn import data


class Toy(keras.Sequential):
    """A model whose first step takes 20 seconds, the others one; it notes the learning rates."""

    seconds = 0.0

    def compile(self, optimizer, loss_weights=None):
        super().compile(optimizer, "mse", run_eagerly=True)
        self.rates = []

    def train_step(self, *_):
        self.seconds += 1 if self.rates else 20
        self.rates.append(float(self.optimizer.learning_rate))
        self.optimizer.iterations.assign_add(1)
        return {"loss": 0.5}


def setup(now=None, **changes):
    given = {"part": "all", "minutes": None, "steps_a": 100, "steps_b": 600, "alternating_steps": 200}
    given |= {
        "transfer_steps": 100,
        "learning_rate": 1.0,
        "batch_size": 2,
        "seed": 0,
        "workers": 1,
        "pipeline": "threads",
    }
    shapes = data.Shapes(2, image_size=(32, 32), seed=5, object_size=(12, 30))
    return Setup(shapes, shapes, "shapes", argparse.Namespace(**{**given, **changes}), now)


# All trainings have 100 + 600 + 200 + 3 · 100 steps, those of part B 1,100.
@pytest.mark.parametrize(
    ("part", "steps", "minutes"), [("all", 100, 6), ("part-a", 100, 72), ("part-b", 600, 72 * 6 / 11)]
)
def test_a_training_has_its_share_of_the_minutes(part, steps, minutes):
    assert setup(part=part).length(steps) == steps
    assert setup(part=part, minutes=72).length(steps) == pytest.approx(minutes)


def test_a_training_ends_on_time_with_a_fallen_rate():
    model = Toy([keras.Input((1,)), keras.layers.Dense(1)])
    work = setup(lambda: model.seconds, minutes=10, part="all")
    trained = work.fit(model, 600, 20, (32, 32), {}, shuffle=False)
    # Half of ten minutes: 280 seconds after the first step.
    assert model.seconds == pytest.approx(300, abs=1) and trained["steps"] == len(model.rates)
    assert len(trained["history"]["loss"]) == 20
    assert max(model.rates) == pytest.approx(1, abs=0.01) and model.rates[-1] < 0.02
    assert (np.diff(model.rates[100:]) <= 0).all()


def test_a_training_by_steps():
    model = Toy([keras.Input((1,)), keras.layers.Dense(1)])
    trained = setup().fit(model, 45, 20, (32, 32), {}, shuffle=False)
    assert trained["steps"] == len(model.rates) == 40 and len(trained["history"]["loss"]) == 20
