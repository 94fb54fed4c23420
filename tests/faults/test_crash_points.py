"""A process that ends before any one of its file operations: started again, the run ends as one that was not stopped.

The parts of a run that write files, without TensorFlow: the epochs of a tiny network whose weight is the number of the
epoch. Each end is that of a process of its own, as by `kill -9`: nothing is cleaned up.
"""

import os
import subprocess
import sys
import textwrap

PROGRAM = """
import argparse, json, os, pathlib, sys
from unittest import mock
import keras, numpy as np
from keras_maskrcnn import atomic
from keras_maskrcnn.training.best import Best
from keras_maskrcnn.training.callbacks import History
from keras_maskrcnn.training.run_folder import RunFolder

FIGURES = (0.25, 0.5, 0.375)  # the second epoch is the best
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
model.optimizer = argparse.Namespace(variables=[])

def run(path):
    model.set_weights([np.zeros((1, 1), "float32")])
    folder = RunFolder(path, argparse.Namespace(seed=0))
    if folder.finished:
        return folder.backup().delete()
    folder.check()
    backup, scores = folder.backup(), argparse.Namespace(current=True, scores={})
    done = backup.restore(model)
    best = Best(path, scores, done)
    folder.start(done)
    history = History(path / "history.csv", append=done > 0)
    for one in (history, best, backup):
        one.set_model(model)
        one.on_train_begin()
    for epoch in range(done, len(FIGURES)):
        model.set_weights(model.get_weights()[0][None] + 1)
        scores.scores = {"bbox_AP": FIGURES[epoch]}
        for one in (history, best, backup):
            one.on_epoch_end(epoch, {"loss": 1 / (epoch + 1), "val_bbox_AP": FIGURES[epoch]})
    history.on_train_end()
    with atomic.replacing(path / "model.keras") as new:
        keras.saving.save_model(model, new)
    folder.finish({"best": best.found, "arguments": folder.arguments})

def weight(path):
    return keras.saving.load_model(path).get_weights()[0].item()

def result(path):
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*"))
    texts = [(path / name).read_text() for name in ("history.csv", "summary.json")]
    return [names, texts, weight(path / "model.keras"), weight(path / "best.keras")]

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
left = None

def hook(event, arguments):
    global left
    if left is None or event not in EVENTS or str(sys.argv[1]) not in str(arguments[0]):
        return
    if left == 0:
        os._exit(9)
    left -= 1

def in_a_process(path, operations):
    global left
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = operations
    try:
        run(path)
    finally:
        os._exit(0 if sys.exc_info() == (None, None, None) else 1)

sys.addaudithook(hook)
base = pathlib.Path(sys.argv[1])
run(base / "whole")
expected, ended = result(base / "whole"), 0
assert expected[0] == ["best.keras", "history.csv", "model.keras", "summary.json"], expected
assert expected[2:] == [3.0, 2.0], expected
while True:
    path = base / str(ended)
    code = in_a_process(path, ended)
    assert code in (0, 9), (ended, code)
    if code == 0:
        break
    run(path)
    found = result(path)
    assert found == expected, (ended, found, expected)
    ended += 1
print(ended)
"""


def test_an_end_before_any_file_operation_changes_no_result(tmp_path):
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    done = subprocess.run(program, env={**os.environ, "KERAS_BACKEND": "numpy"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.splitlines()[-1]) > 30  # operations
