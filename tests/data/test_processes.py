"""`backend="grain"`: the batches of the threads, prepared in processes."""

import functools
import logging
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from keras_maskrcnn import data

pytest.importorskip("grain")

ROOT = pathlib.Path(__file__).parents[2]
SHAPES = data.Shapes(7, image_size=(40, 60), seed=1)
SMALL = {"image_size": (32, 48), "batch_size": 2, "max_instances": 3, "mask_size": 14}


def arrays(batches, count):
    return [{key: np.array(value) for key, value in {**x, **y}.items()} for x, y in map(batches.__getitem__, count)]


def equal(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def batches():
    """`data.batches` with processes, which end with the test."""
    made = []

    def make(dataset, **options):
        made.append(data.batches(dataset, **{**SMALL, "workers": 2, **options}, backend="grain"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_batches_are_those_of_threads_in_any_order_and_epoch(batches):
    options = {"augment": "copy_paste", "sampling": data.RepeatFactor(1.0), "seed": 3, "drop_remainder": False}
    processes, threads = batches(SHAPES, **options), data.batches(SHAPES, **SMALL, **options, backend="numpy")
    assert processes.num_batches == threads.num_batches >= 4
    for index in ([0, 1, 0, 1, 2, 3], [3, 1], range(4)):  # Keras looks at the first batches before the first epoch
        assert equal(arrays(processes, index), arrays(threads, index))
    for each in (processes, threads):
        each.on_epoch_end()
    assert equal(arrays(processes, range(4)), arrays(threads, range(4)))


def test_a_run_that_continues(batches):
    options = {"augment": "standard", "repeat": True, "seed": 3, "cache": True}
    processes, threads = batches(SHAPES, **options), data.batches(SHAPES, **SMALL, **options, backend="numpy")
    processes.rows.start = 10
    assert equal(arrays(processes, range(6)), arrays(threads, range(5, 11)))
    processes.rows.prepare.follow(False)  # the rule of a model, after a first look at the batches
    threads.rows.prepare.follow(False)
    assert equal(arrays(processes, [0]), arrays(threads, [5]))


def test_notes_of_the_processes_arrive(batches, sample, in_memory, caplog):
    files = in_memory([sample([]), sample([[i, 1, i + 1, 9] for i in range(5)]), sample([])])
    processes = batches(files, batch_size=1)
    files.samples[2] = data.DataError("2.jpg", "is truncated")  # before the processes start
    with caplog.at_level(logging.WARNING):
        assert [int(batch["image_index"][0]) for batch in arrays(processes, range(3))] == [0, 1, 0]
    assert files.skipped == {"2.jpg": "is truncated"} and processes.rows.prepare.overfull == {1: 5}
    assert caplog.text.count("2.jpg") == caplog.text.count("max_instances") == 1


def test_errors_arrive(batches, sample, in_memory):
    files = in_memory([sample([])])
    processes = batches(files, batch_size=1)
    files.samples[0] = data.DataError("0.jpg", "is gone")
    with pytest.raises(data.DataError, match=r"^InMemory: no sample can be read any more$"):
        processes[0]

    def wrong(sample, rng):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        batches(SHAPES, augment=wrong)[0]
    with pytest.raises(data.DataError, match="Shapes: cannot be sent to another process"):
        batches(SHAPES, augment=functools.partial(wrong, threading.Lock()))[0]


def test_without_grain(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError, match=r'^backend "grain" needs the package grain: pip install '):
        data.batches(SHAPES, **SMALL, backend="grain")


PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background may ignore it
from keras_maskrcnn import data  # without `if __name__ == "__main__"`

class Count(data.Shapes):  # defined in the program itself
    def labels_at(self, position):
        return super().labels_at(position)

options = {{"augment": "flip", "workers": 2, "backend": "grain", "repeat": True}}
batches = data.batches(Count(9, image_size=(40, 60)), (32, 48), 2, **options)
{work}
"""
FIT = """
import keras

class Mean(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(keras.ops.mean(keras.ops.cast(x["images"], "float32"), (1, 2)) / 255)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(y_pred**2)

model = Mean()
model.compile("sgd", jit_compile=False)
model.fit(batches, steps_per_epoch=3, epochs=2, verbose=0)
print("trained", int(model.optimizer.iterations))
"""
ENDLESS = """
for number in range(10**9):
    batches[number]
    if number == 3:
        print("running", flush=True)
"""


def start(tmp_path, work, **environment):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(work=textwrap.dedent(work)))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(path)], env=environment, start_new_session=True, **pipes)


def group_ends(process, seconds=30):
    """Whether no process of the program's group is left."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    return False


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_fit_takes_the_batches_and_the_program_ends(tmp_path, backend):
    process = start(tmp_path, FIT, KERAS_BACKEND=backend)
    output, error = process.communicate(timeout=240)
    assert process.returncode == 0 and output == "trained 6\n", error
    assert "Exception ignored" not in error and "leaked" not in error
    assert group_ends(process)


def end(process, number):
    """What a program writes to stderr that is sent a signal until it ends.

    Python drops a KeyboardInterrupt that arrives inside a `__del__`, as of grain's arrays ("Exception ignored in").
    """
    for _ in range(5):
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        try:
            return process.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            continue
    os.killpg(process.pid, signal.SIGKILL)
    return f"goes on after five signals\n{process.communicate()[1]}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(tmp_path, number):
    """Ctrl-C reaches the whole group; a program that is killed cannot end its processes."""
    process = start(tmp_path, ENDLESS, KERAS_BACKEND="jax")
    assert process.stdout.readline() == "running\n"
    error = end(process, number)
    ignored = error.count("Exception ignored in: ")
    assert ignored == 0 or number == signal.SIGINT, error
    assert error.count("Traceback") - ignored == (number == signal.SIGINT), error  # of the program only
    assert process.returncode != 0 and group_ends(process)
