"""Training on two replicas of `tf.distribute.MirroredStrategy` equals training on one with the same global batches.

The replicas are two logical CPUs, which must be configured before TensorFlow starts: the steps run in processes of
their own. Samplers that take every candidate are deterministic, and group normalisation has no batch statistics.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import json, sys
import keras, numpy as np, tensorflow as tf
replicas, folder, arguments = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_maskrcnn import MaskRCNN, data, training

def make():
    keras.utils.set_random_seed(3)
    norms = {"norm": arguments.get("head_norm")}
    model = MaskRCNN(
        3, {"name": "resnet10", "width": 8, "norm": arguments.get("norm", "group")}, fpn_channels=16,
        anchors={"sizes": ((12,), (24,), (48,), (64,), (96,))}, proposals={"pre_nms": 50, "post_nms": 20},
        rpn_sampling={"size": 5000, "positive_fraction": 1.0}, box_sampling={"size": 5000, "positive_fraction": 1.0},
        rpn_stage=norms, box_stage={"width": 16, "convs": int("head_norm" in arguments), **norms},
        mask_stage={"width": 8, "depth": 1, **norms}, image_size=(64, 64), seed=7)
    optimizer = {
        "SGD": lambda: training.SGD(1e-2, momentum=0.9, weight_decay=1e-3, global_clipnorm=1.0),
        # With the usual epsilon Adam turns the rounding error of a gradient near 0 into a whole step.
        "AdamW": lambda: keras.optimizers.AdamW(
            1e-3, epsilon=1e-2, global_clipnorm=1.0, use_ema=True, ema_overwrite_frequency=2),
    }[arguments.get("optimizer", "SGD")]()
    model.compile(optimizer, run_eagerly=False, jit_compile=arguments.get("xla", False))
    return model

strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)]) if replicas else None
if strategy:
    with strategy.scope():
        model = make()
else:
    model = make()

class Record(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.logs = []
    def on_train_batch_end(self, batch, logs=None):
        self.logs.append({name: float(value) for name, value in logs.items()})

shapes = data.Subset(data.Shapes(8, image_size=(64, 64), seed=5, object_size=(12, 30)), range(8))
batches = data.batches(shapes, (64, 64), 4, max_instances=6, mask_size=28, shuffle=False)

def with_nan(index):
    def change(x, y):
        bad = x["image_index"][:, None, None, None] == index
        return {**x, "images": tf.where(bad, np.nan, tf.cast(x["images"], tf.float32))}, y
    return batches.map(change)

record = Record()
model.fit(with_nan(-1), epochs=2, verbose=0, callbacks=[record])
evaluated = model.evaluate(batches, verbose=0, return_dict=True)
variables = [*model.weights, *model.optimizer.variables]
trained = [np.array(v) for v in variables]
np.savez(f"{folder}/{replicas}.npz", *trained)
bad = Record()
model.fit(with_nan(3), epochs=1, verbose=0, callbacks=[bad])  # the last image of the first of two batches
copies = []
for variable in variables if replicas > 1 else ():
    first, second = strategy.experimental_local_results(variable.value)
    if not np.array_equal(first, second):
        copies.append(variable.path)
names = [v.path for v in variables]
print(json.dumps({"steps": record.logs, "evaluated": evaluated, "bad": bad.logs, "different_copies": copies,
                  "names": names, "weights": len(model.weights),
                  "skipped": np.array(model.skipped_images)[:5].tolist()}))
"""


def run(folder, replicas, **arguments):
    """Steps' logs and further results, and the arrays of all weights and optimizer variables."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", PROGRAM, str(replicas), str(folder), json.dumps(arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr[-3000:]
    with np.load(folder / f"{replicas}.npz") as arrays:
        return json.loads(process.stdout.strip().splitlines()[-1]), list(arrays.values())


def check(one, two, rel=1e-4):
    for kind in ("steps", "bad"):
        for step, expected in zip(two[0][kind], one[0][kind], strict=True):
            assert step == pytest.approx(expected, rel=rel, abs=1e-6)
    assert two[0]["evaluated"] == pytest.approx(one[0]["evaluated"], rel=1e-3)
    for i, (name, found, expected) in enumerate(zip(two[0]["names"], two[1], one[1], strict=True)):
        # The optimizer's variables are compared by their own scale, which is that of the gradients.
        atol = 2e-5 if i < two[0]["weights"] else 1e-2 * max(np.abs(expected).max(), 1e-4)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=atol, err_msg=name)
    for results, _ in (one, two):
        # A step that is not finite on one replica is skipped on all.
        assert [step["skipped_steps"] for step in results["bad"]] == [1, 1]
        assert results["skipped"] == [0, 1, 2, 3, -1]
    assert two[0]["different_copies"] == []


@pytest.mark.slow
def test_two_replicas_train_as_one(tmp_path):
    one, two = (run(tmp_path, replicas) for replicas in (0, 2))
    assert len(one[0]["steps"]) == 4
    assert one[0]["steps"][0]["gradient_norm"] > 1, "the gradients are clipped"
    check(one, two)


@pytest.mark.slow
def test_xla_is_refused_in_one_line(tmp_path):
    with pytest.raises(AssertionError, match=r"strategy, compile the model with jit_compile=False"):
        run(tmp_path, 2, xla=True)


@pytest.mark.slow
def test_two_replicas_with_decoupled_decay_and_averaged_weights(tmp_path):
    check(*(run(tmp_path, replicas, optimizer="AdamW") for replicas in (0, 2)), rel=1e-3)


@pytest.mark.slow
def test_replicas_have_equal_moving_averages(tmp_path):
    results, _ = run(tmp_path, 2, norm="batch")
    assert results["different_copies"] == []
    assert [step["skipped_steps"] for step in results["bad"]] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("of", ["norm", "head_norm"])
def test_synchronised_batch_norm_has_the_statistics_of_the_global_batch(tmp_path, of):
    one, two = run(tmp_path, 0, **{of: "batch"}), run(tmp_path, 2, **{of: "sync_batch"})
    for step, expected in zip(two[0]["steps"], one[0]["steps"], strict=True):
        assert step == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert two[0]["different_copies"] == []
