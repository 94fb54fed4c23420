"""The repair of `fit` under MultiWorkerMirroredStrategy, and whether Keras still needs it (Keras issue 20585)."""

import inspect

import keras
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from keras_maskrcnn.backend.tensorflow.workers import Workers

SEE = "see keras_maskrcnn/backend/tensorflow/workers.py"


def reduce(strategy, reduce_op, value, axis):
    """As `tf.distribute.Strategy.reduce`, which refuses scalars with an axis."""
    if axis is not None and value.shape.rank == 0:
        raise ValueError("`axis` = 0 specified for a value of rank 0")
    return value if axis is None else tf.reduce_mean(value, axis)


class Local(Workers):
    """Makes no connection."""

    def __init__(self):
        pass

    def experimental_local_results(self, value):
        return (value,)


@pytest.fixture(autouse=True)
def several_workers(monkeypatch):
    monkeypatch.setattr(trainer, "_collective_all_reduce_multi_worker", lambda strategy: True)
    monkeypatch.setattr(tf.distribute.Strategy, "reduce", reduce)


def test_scalars_are_averaged_over_the_replicas():
    found = trainer.reduce_per_replica({"loss": tf.constant(2.0), "rows": tf.constant([1.0, 3.0])}, Local(), "auto")
    assert {name: float(value) for name, value in found.items()} == {"loss": 2.0, "rows": 2.0}


def test_keras_still_averages_scalars_along_an_axis():
    original = tf.distribute.Strategy.__new__(tf.distribute.Strategy)
    try:
        trainer.reduce_per_replica({"loss": tf.constant(2.0)}, original, "auto")
    except ValueError:
        return
    pytest.fail(f"Keras no longer needs the repair: {SEE}")


def test_keras_still_builds_with_an_average_of_the_first_batch():
    source = inspect.getsource(keras.Model._maybe_symbolic_build)
    assert '"MEAN"' in source, "Keras no longer averages the batch: see BuiltModel in keras_internals.py"
