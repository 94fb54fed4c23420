"""Factors of the learning rate for single layers: how far steps move weights; files, backends, compilation."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_maskrcnn.training import SGD, AdamW, Steps, WarmUp

ROOT = pathlib.Path(__file__).parents[2]
RNG = np.random.default_rng(0)
START = {"slow/kernel": RNG.normal(size=(3, 4)).astype("float32"), "fast/kernel": RNG.normal(size=4).astype("float32")}
GRADIENTS = [{name: RNG.normal(size=w.shape).astype("float32") for name, w in START.items()} for _ in range(6)]
RATES = {"slow/kernel": 0.1}
CASES = {
    "sgd": (SGD, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    "plain sgd": (SGD, {}),
    "adamw": (AdamW, {"weight_decay": 0.1}),
    "clipped": (AdamW, {"weight_decay": 0.1, "global_clipnorm": 0.5}),
}


def schedule(scale=1.0):
    return WarmUp(Steps(0.05 * scale, [4]), 3, start_factor=0.1)


def trained(optimizer, gradients=GRADIENTS):
    """Weights after some steps with these gradients."""
    variables = [layer_weight(name) for name in START]
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(step[name]) for name in START], variables)
    return {name: keras.ops.convert_to_numpy(v) for name, v in zip(START, variables, strict=True)}


def layer_weight(path):
    layer, name = path.split("/")
    with keras.name_scope(layer):
        variable = keras.Variable(START[path], name=name)
    assert variable.path == path
    return variable


def check(case):
    """The slow weight moves as with a tenth of the rate, the other as with the whole rate."""
    make, options = CASES[case]
    found = trained(make(schedule(), layer_rates=RATES, **options))
    whole, tenth = (trained(make(schedule(scale), **options)) for scale in (1.0, 0.1))
    np.testing.assert_allclose(found["slow/kernel"], tenth["slow/kernel"], rtol=1e-5)
    np.testing.assert_array_equal(found["fast/kernel"], whole["fast/kernel"])
    assert np.abs(found["slow/kernel"] - whole["slow/kernel"]).max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_a_factor_acts_like_another_learning_rate(case):
    check(case)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_without_factors_is_that_of_keras(decay):
    ours, theirs = AdamW(schedule(), weight_decay=decay), keras.optimizers.AdamW(schedule(), weight_decay=decay)
    for optimizer in (ours, theirs):
        optimizer.exclude_from_weight_decay(var_names=["fast"])
    found, expected = trained(ours), trained(theirs)
    for name in START:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-7)


def test_one_step_by_hand():
    # SGD: w - rate * factor * g. Adam's first step is the rate in the direction of each gradient.
    step = GRADIENTS[:1]
    plain = trained(SGD(0.5, layer_rates=RATES), step)
    np.testing.assert_allclose(plain["slow/kernel"], START["slow/kernel"] - 0.05 * step[0]["slow/kernel"], rtol=1e-5)
    adam = trained(AdamW(0.5, weight_decay=0.2, layer_rates=RATES), step)
    moved = START["slow/kernel"] * (1 - 0.05 * 0.2) - 0.05 * np.sign(step[0]["slow/kernel"])
    np.testing.assert_allclose(adam["slow/kernel"], moved, rtol=1e-4, atol=1e-5)
    assert (trained(SGD(0.5, layer_rates={"slow/kernel": 0.0}), step)["slow/kernel"] == START["slow/kernel"]).all()


def two_layers():
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(1, name="b")(keras.layers.Dense(3, name="a")(inputs)))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sgd", "adamw"])
def test_config_and_saved_model_round_trip(case, tmp_path):
    make, options = CASES[case]
    again = keras.optimizers.deserialize(keras.optimizers.serialize(make(schedule(), layer_rates=RATES, **options)))
    assert type(again) is make and again.layer_rates == RATES
    model = two_layers()
    x, y = np.ones((4, 2)), np.ones((4, 1))
    model.compile(make(0.1, layer_rates={model.get_layer("a").kernel.path: 0.1}, **options), loss="mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for one in (model, loaded):
        one.fit(x, y, verbose=0)
    for one, two in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def compiled():
    """One compiled step of a small model with a factor equals the step with that rate for all."""
    x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    moved = {}
    for factor in (None, 0.25):
        keras.utils.set_random_seed(1)
        model = two_layers()
        before = [np.array(w) for w in model.trainable_weights]
        rates = {model.get_layer("a").kernel.path: factor} if factor else None
        model.compile(AdamW(0.1, weight_decay=0.0, layer_rates=rates), loss="mse", jit_compile=True)
        model.train_on_batch(x, y)
        moved[factor] = [np.array(w) - b for w, b in zip(model.trainable_weights, before, strict=True)]
    for i, (found, whole) in enumerate(zip(moved[0.25], moved[None], strict=True)):
        np.testing.assert_allclose(found, (0.25 if i == 0 else 1.0) * whole, rtol=1e-4, atol=1e-6)
        assert np.abs(whole).max() > 0.05


@pytest.mark.slow
def test_a_compiled_step():
    compiled()


IN_JAX = """
import keras
import test_layer_rates
assert keras.backend.backend() == "jax"
test_layer_rates.check("sgd")
test_layer_rates.check("adamw")
test_layer_rates.compiled()
"""


@pytest.mark.slow
def test_jax_gives_the_same_values():
    folders = os.pathsep.join(map(str, (ROOT, pathlib.Path(__file__).parent)))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": folders}
    answer = subprocess.run(
        [sys.executable, "-c", IN_JAX], env=environment, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
