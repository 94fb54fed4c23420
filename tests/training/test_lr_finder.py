"""The learning-rate finder: suggestions worked by hand, a sweep on a known loss, and a model that is put back."""

import csv
import json
import math
import os
import pathlib
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.training import LRFinder, warmup_cosine
from keras_maskrcnn.training.backup import variables
from keras_maskrcnn.training.lr_finder import Sweep

ROOT = pathlib.Path(__file__).parents[2]
TENS = 10.0 ** np.arange(-6, 2)


def sweep(*losses, first=0):
    losses = np.array(losses, float)
    return Sweep(TENS[: len(losses)], losses, losses, False, first)


def test_steepest_by_hand():
    # Central differences, one-sided at the ends: 0, -0.5, -1.5, -2, -0.5, 2.5, 4.
    assert sweep(6, 6, 5, 3, 1, 2, 6).steepest == pytest.approx(1e-3)
    # The largest single fall is the last; nothing lies behind it.
    assert sweep(6, 5, 4, 0).steepest == pytest.approx(1e-3)


def test_valley_by_hand():
    # 6, 5, 3, 1 falls longest (the second 6 and the 4 behind are left out): its middle of four, rounded up, is the 3.
    assert sweep(6, 6, 5, 3, 4, 1, 2).valley == pytest.approx(1e-3)
    # 9, 8, 7, 6, 5 leaves out the 10 that rises in between.
    assert sweep(9, 8, 10, 7, 6, 5).valley == pytest.approx(1e-3)


def test_averages_of_few_losses_are_not_looked_at():
    curve = (100, 9, 8, 7, 5, 4)
    assert sweep(*curve).steepest == pytest.approx(1e-6) and sweep(*curve).valley == pytest.approx(1e-3)
    settled = sweep(*curve, first=1)  # differences -1, -1, -1.5, -1.5, -1: the first of the two largest
    assert settled.steepest == pytest.approx(1e-3) and settled.valley == pytest.approx(1e-3)


def test_a_loss_that_only_rises_has_no_suggestion():
    found = sweep(1, 2, 3, 4)
    assert found.steepest is None and found.valley is None
    assert str(found) == "learning rate: no suggestion, the loss did not fall (the loss had not diverged at 0.001)"


def test_smoothing_is_corrected_for_its_start():
    # s = 0.5: averages 0.5 * 4, 0.5 * 2 + 0.5 * 2, 0.5 * 2 + 0.5 * 6, divided by 0.5, 0.75, 0.875.
    np.testing.assert_allclose(LRFinder(smoothing=0.5).smooth([4, 2, 6]), [4, 2 / 0.75, 4 / 0.875])


class Scalar(keras.Model):
    """The loss w² / 2: gradient descent multiplies w by 1 - rate, so that it diverges from a rate of 2 on."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(), initializer="ones", name="w")
        self.built = True

    def call(self, inputs):
        return inputs * 0 + ops.square(self.w) / 2


def scalar(rate, **options):
    model = Scalar()
    model.compile(keras.optimizers.SGD(rate), loss=lambda y, p: ops.mean(p), **options)
    return model


@pytest.mark.parametrize("rate", [0.5, warmup_cosine(0.5, 10)], ids=["number", "schedule"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_each_step_has_its_rate_and_the_sweep_ends_where_the_loss_diverges(rate, jit_compile):
    model = scalar(rate, jit_compile=jit_compile)
    finder = LRFinder(low=3e-3, high=3e2, steps=20, smoothing=0.0)
    found = finder.run(model, [(np.ones((1, 1), "float32"),) * 2] * 3)
    rates = np.geomspace(3e-3, 3e2, 20)
    w = np.cumprod(np.concatenate([[1.0], 1 - rates]))  # before each update
    expected = w**2 / 2
    end = next(i for i in range(20) if expected[i] > 4 * expected[: i + 1].min()) + 1
    assert found.diverged and len(found.losses) == end < 20
    np.testing.assert_allclose(found.losses, expected[:end], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found.rates, rates[:end])
    assert 3e-3 < found.steepest < 2 and 3e-3 < found.valley < 2
    assert float(model.w) == 1 and int(model.optimizer.iterations) == 0
    # The optimizer has its own rate again, also in a step that is traced.
    first = 0.5 if rate == 0.5 else 0.5 * 0.001
    assert float(model.optimizer.learning_rate) == pytest.approx(first)
    model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))
    assert float(model.w) == pytest.approx(1 - first)


def test_a_loss_that_is_not_finite_ends_the_sweep_and_is_left_out():
    class Steps(keras.Model):
        calls = 0

        def __init__(self):
            super().__init__()
            self.w = self.add_weight(shape=(), initializer="ones")
            self.built = True

        def call(self, inputs):
            return inputs

        def train_step(self, inputs):
            self.calls += 1
            return {"loss": [3.0, 2.0, math.nan][self.calls - 1]}

    model = Steps()
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    found = LRFinder(steps=9).run(model, iter([(np.ones(1), np.ones(1))] * 9))
    assert found.diverged and found.losses.tolist() == [3.0, 2.0] and model.calls == 3


TINY = {
    "backbone": {"name": "resnet10", "norm": "batch", "width": 8},
    "fpn_channels": 16,
    "proposals": {"pre_nms": 50, "post_nms": 20, "training_pre_nms": 50, "training_post_nms": 20},
    "box_stage": {"width": 16},
    "box_sampling": {"size": 8},
    "mask_stage": {"width": 8, "depth": 1},
}


def shapes(**options):
    return data.batches(data.Shapes(5, image_size=(64, 64), seed=1), (64, 64), 2, 8, 28, shuffle=True, **options)


def snapshot(model):
    return [np.array(variable) for variable in [*variables(model), model.skipped_images]]


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.parametrize("backend", ["tf", pytest.param("numpy", marks=pytest.mark.slow)])
def test_a_detector_is_put_back_bit_for_bit(backend, eager_functions):
    model = MaskRCNN(3, image_size=(64, 64), seed=0, **TINY)
    rate = warmup_cosine(1e-3, 10) if backend == "tf" else 1e-3
    model.compile(keras.optimizers.AdamW(rate, global_clipnorm=5.0))
    batches = shapes(repeat=True, backend=backend)
    model.fit(batches, steps_per_epoch=2, verbose=0)  # slots, statistics and seeds that are not the first ones
    batches.rows.start = 4
    before = snapshot(model)
    found = LRFinder(low=1e-5, high=1e-2, steps=4).run(model, batches)
    assert len(found.losses) == 4 and np.isfinite(found.losses).all() and len(set(found.losses)) == 4
    for one, two in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(one, two)
    assert batches.rows.start == 4
    again = LRFinder(low=1e-5, high=1e-2, steps=4).run(model, batches)  # the same batches, samples and weights
    np.testing.assert_array_equal(found.losses, again.losses)


def test_an_interrupted_sweep_also_puts_the_model_back(monkeypatch):
    model = scalar(0.5)
    calls = []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        model.w.assign(7.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scalar, "train_on_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LRFinder().run(model, [(np.ones((1, 1)), np.ones((1, 1)))])
    assert calls and float(model.w) == 1


def test_files_hold_the_curve(tmp_path):
    losses = np.array([8, 7, 6, 5, 2, 1.5, 1, 0.5])
    found = Sweep(TENS, losses, losses, True)
    picture = found.save(tmp_path / "run")
    content = json.loads((tmp_path / "run" / "lr_finder.json").read_text())
    assert content["valley"] == pytest.approx(1e-2) and content["diverged"] is True
    with open(tmp_path / "run" / "lr_finder.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(TENS.tolist())
    assert [float(row["loss"]) for row in rows] == content["loss"]
    assert picture == tmp_path / "run" / "lr_finder.png" and np.asarray(Image.open(picture)).std() > 5
    assert str(found) == "learning rate: steepest 0.001, valley 0.01 (the loss diverged at 10)"


def test_a_sweep_without_any_finite_loss_is_drawn(tmp_path):
    found = LRFinder(steps=5)._sweep(TENS[:5], [math.nan])
    assert found.steepest is None and found.valley is None and found.save(tmp_path).exists()
    assert "the first loss was not finite" in str(found)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"low": 0.0}, "low=0.0"),
        ({"low": 1.0, "high": 0.1}, "high=0.1"),
        ({"steps": 1}, "steps=1"),
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"divergence": 1.0}, "divergence=1.0"),
    ],
)
def test_options_that_make_no_sense(options, reason):
    with pytest.raises(ValueError, match=reason):
        LRFinder(**options)


def test_what_cannot_be_swept_is_one_line():
    pair = [(np.ones((1, 1)), np.ones((1, 1)))]
    with pytest.raises(ValueError, match="compile the model"):
        LRFinder().run(Scalar(), pair)
    with pytest.raises(ValueError, match="steps_per_execution=2"):
        LRFinder().run(scalar(0.1, steps_per_execution=2), pair)
    with pytest.raises(ValueError, match="none that is left to read"):
        LRFinder().run(scalar(0.1), iter(pair))


ON_JAX = """
    import keras, numpy as np
    from keras import ops
    from keras_maskrcnn.training import LRFinder, warmup_cosine

    class Scalar(keras.Model):
        def __init__(self):
            super().__init__()
            self.w = self.add_weight(shape=(), initializer="ones")
            self.built = True

        def call(self, inputs):
            return inputs * 0 + ops.square(self.w) / 2

    model = Scalar()
    pair = (np.ones((1, 1), "float32"),) * 2
    model.compile(keras.optimizers.SGD(0.5), loss=lambda y, p: ops.mean(p))
    found = LRFinder(low=1e-3, high=1.0, steps=7, smoothing=0.0).run(model, [pair])
    w = np.cumprod(np.concatenate([[1.0], 1 - np.geomspace(1e-3, 1, 7)]))[:7]
    np.testing.assert_allclose(found.losses, w**2 / 2, rtol=1e-4)
    assert float(model.w) == 1 and int(model.optimizer.iterations) == 0 and float(model.optimizer.learning_rate) == 0.5
    model.compile(keras.optimizers.SGD(warmup_cosine(0.5, 10)), loss=lambda y, p: ops.mean(p))
    try:
        LRFinder().run(model, [pair])
    except ValueError as error:
        assert "a number, not a schedule" in str(error)
    else:
        raise AssertionError("a schedule was accepted")
"""


def test_on_jax_a_number_is_swept_and_a_schedule_refused():
    program = [sys.executable, "-c", textwrap.dedent(ON_JAX)]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
