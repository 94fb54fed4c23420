"""The private parts of Keras that the package uses still exist and behave as required."""

import keras
import numpy as np
import pytest

from keras_maskrcnn.backend import keras_internals

SEE = "see keras_maskrcnn/backend/keras_internals.py"


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (keras.layers.Layer, "_flatten_layers"),
        (keras.optimizers.Optimizer, "_use_weight_decay"),
        (keras.optimizers.Optimizer, "_get_variable_index"),
        (keras.optimizers.Optimizer, "_apply_weight_decay"),
        (keras.Model, "_maybe_symbolic_build"),
    ],
)
def test_keras_still_has(owner, name):
    assert callable(getattr(owner, name, None)), f"Keras no longer has {owner.__name__}.{name}: {SEE}"


def test_flatten_layers_finds_all_levels():
    dense = keras.layers.Dense(1, name="dense")
    inner = keras.Sequential([dense], name="inner")
    outer = keras.Sequential([inner, keras.layers.ReLU(name="relu")], name="outer")
    names = sorted(layer.name for layer in keras_internals.flatten_layers(outer))
    assert names == ["dense", "inner", "outer", "relu"], f"Layer._flatten_layers has changed: {SEE}"


class Recorder(keras_internals.NoDecoupledDecay, keras.optimizers.SGD):
    """Records the calls of `update_step` without updating."""

    def update_step(self, gradient, variable, learning_rate):
        self.seen = [
            *getattr(self, "seen", []),
            (keras_internals.variable_index(self, variable), keras_internals.decays(self, variable)),
        ]


def test_averages_of_the_weights():
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.75)
    weight = keras.Variable(np.ones(2))
    optimizer.build([weight])
    optimizer.apply([keras.ops.ones(2)])
    # 1 - 0.5 · 1 = 0.5; the average starts with the first weights.
    (average,) = keras_internals.averages(optimizer)
    np.testing.assert_allclose(average, 0.5, err_msg=f"the averages have another start or name: {SEE}")
    assert keras_internals.averages(Recorder()) == []


def test_optimizer_finds_variables_and_their_exclusion():
    kernel, bias = (keras.Variable(np.ones(2), name=name) for name in ("kernel", "bias"))
    optimizer = Recorder(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build([kernel, bias])
    optimizer.apply([keras.ops.ones(2), keras.ops.ones(2)])
    assert optimizer.seen == [(0, True), (1, False)], f"update_step finds other variables: {SEE}"
    np.testing.assert_array_equal(kernel, [1, 1], err_msg=f"Keras decays weights outside _apply_weight_decay: {SEE}")
