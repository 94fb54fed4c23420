"""SGD with coupled weight decay: comparison with torch and Keras, exclusion, clipping, averaging."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_maskrcnn.training import SGD, Steps, WarmUp

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 10
RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 4)).astype("float32"), "bias": RNG.normal(size=4).astype("float32")}
GRADIENTS = [{name: RNG.normal(size=w.shape).astype("float32") for name, w in START.items()} for _ in range(STEPS)]

CASES = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "momentum": {"momentum": 0.9},
    "both": {"momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
}

# Sum and sum of squares of all weights after ten steps of torch.optim.SGD (torch 2.13, float64) with the same initial
# weights and gradients, for the constant rate and for `warm_up`.
TORCH = {
    "plain": ((-4.882252, 13.854021), (-4.685677, 13.237834)),
    "decay": ((-4.652074, 12.559001), (-4.553092, 12.469838)),
    "momentum": ((-7.785442, 17.81151), (-6.926295, 15.337175)),
    "both": ((-6.722877, 12.763239), (-6.310387, 12.132613)),
    "nesterov": ((-6.777185, 13.288857), (-6.36492, 12.146031)),
}


def warm_up():
    """A rate with a warm-up of four steps and a drop at the eighth."""
    return WarmUp(Steps(0.05, [8]), 4, start_factor=0.1)


def rates(schedule):
    return [float(schedule(step)) if callable(schedule) else schedule for step in range(STEPS)]


def by_hand(rate, momentum=0.0, weight_decay=0.0, nesterov=False, decayed=("kernel", "bias")):
    """The update in float64 NumPy, as in the documentation of `torch.optim.SGD`."""
    weights = {name: w.astype("float64") for name, w in START.items()}
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    for r, gradients in zip(rates(rate), GRADIENTS, strict=True):
        for name, w in weights.items():
            g = gradients[name] + (weight_decay * w if name in decayed else 0)
            velocity[name] = momentum * velocity[name] + g
            weights[name] = w - r * (g + momentum * velocity[name] if nesterov else velocity[name])
    return weights


def by_keras(optimizer, gradients=GRADIENTS):
    variables = {name: keras.Variable(w, name=name) for name, w in START.items()}
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(step[name]) for name in variables], list(variables.values()))
    return {name: keras.ops.convert_to_numpy(v) for name, v in variables.items()}


def assert_same(found, wanted, tolerance=2e-6):
    for name, weight in wanted.items():
        np.testing.assert_allclose(found[name], weight, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("rate", [0.05, warm_up()], ids=["constant", "warm-up"])
@pytest.mark.parametrize("case", CASES)
def test_ten_steps_equal_torch(case, rate):
    assert_same(by_keras(SGD(rate, **CASES[case])), by_hand(rate, **CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_the_reference_equals_torch(case):
    for rate, wanted in zip((0.05, warm_up()), TORCH[case], strict=True):
        weights = np.concatenate([w.ravel() for w in by_hand(rate, **CASES[case]).values()])
        assert (weights.sum(), (weights**2).sum()) == pytest.approx(wanted, rel=1e-5)


def test_keras_sgd_agrees_only_without_decay_and_at_a_constant_rate():
    momentum = {"momentum": 0.9}
    assert_same(by_keras(keras.optimizers.SGD(0.05, **momentum)), by_hand(0.05, **momentum))
    for rate, decay in ((warm_up(), None), (0.05, 0.1)):
        theirs = by_keras(keras.optimizers.SGD(rate, weight_decay=decay, **momentum))
        ours = by_keras(SGD(rate, weight_decay=decay, **momentum))
        assert np.abs(theirs["kernel"] - ours["kernel"]).max() > 1e-2


def test_excluded_variables_do_not_decay():
    optimizer = SGD(0.05, **CASES["both"])
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert_same(by_keras(optimizer), by_hand(0.05, **CASES["both"], decayed=("kernel",)))


def test_accumulated_gradients_are_one_step_of_their_mean():
    apart = [{name: g + offset for name, g in step.items()} for step in GRADIENTS for offset in (0.5, -0.5)]
    optimizer = SGD(0.05, **CASES["both"], gradient_accumulation_steps=2)
    assert_same(by_keras(optimizer, apart), by_hand(0.05, **CASES["both"]), 2e-5)


def test_clipping_precedes_the_decay():
    norm = np.sqrt(sum((g**2).sum() for g in GRADIENTS[0].values()))
    found = by_keras(SGD(0.05, **CASES["both"], global_clipnorm=0.5), GRADIENTS[:1])
    assert_same(found, {name: w - 0.05 * (GRADIENTS[0][name] * 0.5 / norm + 0.1 * w) for name, w in START.items()})


def test_moving_average_follows_the_weights():
    variable = keras.Variable([1.0])
    optimizer = SGD(0.5, use_ema=True, ema_momentum=0.5)
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)], [variable])
    optimizer.finalize_variable_values([variable])
    # The weights are 0.5 and 0.0; the average starts with the first.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), [0.25])


def test_config_and_saved_model_round_trip(tmp_path):
    options = {"momentum": 0.8, "nesterov": True, "weight_decay": 1e-3, "global_clipnorm": 2.0, "name": "mine"}
    again = keras.optimizers.deserialize(keras.optimizers.serialize(SGD(warm_up(), **options)))
    assert type(again) is SGD
    assert {name: getattr(again, name) for name in options} == options
    assert again.get_config() == SGD(warm_up(), **options).get_config()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(SGD(0.1, momentum=0.9), loss="mse")
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded.optimizer) is SGD
    for mine, yours in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, yours)


IN_JAX = """
import keras
import test_sgd
assert keras.backend.backend() == "jax"
for rate in (0.05, test_sgd.warm_up()):
    test_sgd.test_ten_steps_equal_torch("both", rate)
test_sgd.test_excluded_variables_do_not_decay()
test_sgd.test_accumulated_gradients_are_one_step_of_their_mean()
"""


def test_jax_gives_the_same_values():
    folders = os.pathsep.join(map(str, (ROOT, pathlib.Path(__file__).parent)))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": folders}
    answer = subprocess.run(
        [sys.executable, "-c", IN_JAX], env=environment, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
