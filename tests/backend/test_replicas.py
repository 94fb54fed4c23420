"""Means over replicas, in this process with one device: the replica contexts are fakes."""

import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.ops.losses import masked_mean

VALUES, MASK = np.arange(1.0, 9.0, dtype="float32"), np.array([1, 0, 1, 1, 0, 1, 0, 0], "bool")
ROOT = pathlib.Path(__file__).parents[2]


class Context:
    """Two replicas; the other one contributes `other` to a sum."""

    num_replicas_in_sync = 2
    strategy = types.SimpleNamespace(extended=types.SimpleNamespace(worker_devices=("one", "other")))

    def __init__(self, other):
        self.other = other

    def all_reduce(self, how, values):
        assert how == "SUM"
        return values + self.other


def test_one_replica_adds_nothing():
    values = tf.constant(VALUES)
    assert replicas.number() == 1
    for function in (replicas.total, replicas.mean, replicas.gathered):
        assert function(values) is values
    graph = tf.function(lambda v: replicas.global_mean(v, MASK)).get_concrete_function(values).graph
    plain = tf.function(lambda v: masked_mean(v, MASK)).get_concrete_function(values).graph
    assert [op.type for op in graph.get_operations()] == [op.type for op in plain.get_operations()]


@pytest.mark.parametrize("split", [1, 2, 5, 7])
@pytest.mark.parametrize("given", [False, True])
def test_the_mean_over_replicas_is_that_of_the_global_batch(monkeypatch, split, given):
    count = (lambda mask: mask.sum() + 1.0) if given else (lambda mask: None)
    parts = [slice(None, split), slice(split, None)]
    found = []
    for part, rest in (parts, parts[::-1]):
        other = Context(MASK[rest].sum() + (1.0 if given else 0.0))
        monkeypatch.setattr(replicas, "_context", lambda other=other: other)
        found.append(float(replicas.global_mean(VALUES[part], MASK[part], count(MASK[part]))))
    wanted = VALUES[MASK].sum() / (MASK.sum() + (2 if given else 0))
    assert np.mean(found) == pytest.approx(wanted, rel=1e-6)


def test_a_batch_without_a_candidate_and_one_with_a_single_one(monkeypatch):
    found = []
    for mask, other in (([True, False], 0.0), ([False, False], 1.0)):
        monkeypatch.setattr(replicas, "_context", lambda other=other: Context(other))
        found.append(float(replicas.global_mean(VALUES[4:6], np.array(mask))))
    assert found == [10.0, 0.0]  # twice 5 / 1, and nothing: the mean is 5


PROGRAM = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_maskrcnn.backend import replicas
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    variable = tf.Variable(0.0, trainable=False)
assert replicas.number() == 1

@tf.function
def step():
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    value = tf.cast(replica, tf.float32) + 1
    variable.assign(4 * value)  # as a moving average of batch statistics: 4 on the first replica, 8 on the second
    empty = replicas.mean([])
    row = replicas.gathered(tf.fill([replica + 1], replica))
    numbers = [tf.constant(replicas.number()), tf.constant(len(empty)), *tf.unstack(row, 3)]
    return replicas.total(value), replicas.mean([tf.convert_to_tensor(variable)])[0], *numbers

for values in zip(*(strategy.experimental_local_results(v) for v in strategy.run(step))):
    print(*(float(v) for v in values))
"""


def test_two_replicas():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-2000:]
    # 1 + 2; (4 + 8) / 2; the number; an empty list; one row of 0 and two of 1.
    assert process.stdout.split("\n")[-3:-1] == ["3.0 6.0 2.0 0.0 0.0 1.0 1.0"] * 2
