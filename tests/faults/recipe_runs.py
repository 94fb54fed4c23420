"""Runs of `train/shapes.py` in processes of their own, which are killed or meet a fault at a chosen moment.

Each process is forked from one that has imported the library and TensorFlow but run no operation, so that it starts as
a new one does, without the seconds of the import.
"""

import csv
import errno
import itertools
import json
import multiprocessing
import os
import pathlib
import resource
import runpy
import signal
import sys
import time
import traceback
import warnings

import keras
import numpy as np
import tensorflow as tf

import keras_maskrcnn.quiet  # noqa: F401  as in the recipes
from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.training import finishing, networks  # noqa: F401  imported by the recipe
from keras_maskrcnn.training.backup import Backup
from keras_maskrcnn.training.best import Best
from keras_maskrcnn.training.clock import Clock, TimedEval
from keras_maskrcnn.training.run_folder import RunFolder

SCRIPT = pathlib.Path(__file__).parents[2] / "train" / "shapes.py"
EPOCHS = 8
NETWORK = ("--precision", "float32", "--backbone", "resnet10", "--width", 8, "--image-size", 64)
LENGTH = ("--steps", 2 * EPOCHS, "--epochs", EPOCHS)
ARGUMENTS = ("--batch-size", 2, "--val-images", 2, *NETWORK)
# The phases of a run and the methods that begin them, in their order. Each lasts until the next one begins.
IN_EPOCHS = {
    "training": (Clock, "on_epoch_begin"),
    "evaluation": (TimedEval, "on_epoch_end"),
    "best": (Best, "on_epoch_end"),
    "backup": (Backup, "on_epoch_end"),
}
AFTER = {
    "model": (MaskRCNN, "save"),
    "export": (MaskRCNN, "export"),
    "pictures": (finishing, "draw"),
    "summary": (RunFolder, "finish"),
}
PHASES = IN_EPOCHS | AFTER
# Phases that write, and which of those of its name in a process a fault meets. "best" comes first: only the first epoch
# of a run is certain to be the best so far. The others in epochs have a complete epoch before them.
WRITING = {"best": 1, "evaluation": 2, "backup": 2, **dict.fromkeys(AFTER, 1)}
# How long a process took; everything else in a summary follows from the arguments.
TIMES = {"command", "images_per_second"} | {f"{part}_seconds" for part in ("training", "fit", "scoring", "finishing")}
SECONDS = 900  # until a process counts as hung: tests share their cores, and may be suspended

_now = time.time  # tests set other clocks
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["keras_maskrcnn.quiet", "keras_maskrcnn.training.networks", "matplotlib.pyplot"])


class Run:
    """A process of `train/shapes.py`.

    Args:
        output: Path of the folder of the run. What the process prints, and its phases, are in files beside it.
        *arguments: of the recipe, after `ARGUMENTS`.
        length: arguments that set the length of the run.
        fault: (phase, number, function of the folder) that runs when a phase begins for the `number`-th time.
        before: function without arguments that runs first in the process.
        graph: whether the steps are compiled, which takes most of the time of so short a run, or run eagerly.
    """

    def __init__(self, output, *arguments, length=LENGTH, fault=None, before=None, graph=False):
        self.output = output
        self._files = {name: output.with_name(f"{output.name}.{name}") for name in ("stdout", "stderr", "phases")}
        for path in self._files.values():
            path.write_bytes(b"")
        words = [str(word) for word in (SCRIPT, "--output", output, *ARGUMENTS, *length, *arguments)]
        process = (words, output, self._files, fault, before, graph)
        self._process = _CONTEXT.Process(target=_main, args=process)
        self._process.start()
        self.pid = self._process.pid

    def phases(self):
        """List of (phase, seconds since the epoch at its beginning), those that have begun."""
        lines = self._files["phases"].read_text().splitlines(keepends=True)
        return [(line.split()[0], float(line.split()[1])) for line in lines if line.endswith("\n")]

    def durations(self):
        """List of (phase, seconds) of the phases that have ended."""
        begun = self.phases()
        return [(phase, next_ - start) for (phase, start), (_, next_) in itertools.pairwise(begun)]

    def wait_for(self, phase, number=1):
        """Waits until a phase has begun `number` times; returns whether it has, rather than the process ended."""
        while True:
            alive = self._process.exitcode is None
            if sum(name == phase for name, _ in self.phases()) >= number:
                return True
            if not alive:
                return False
            time.sleep(0.01)

    def wait_in(self, phase, number, seconds):
        """Waits for a phase as `wait_for`, and in it, but not after its end: other processes may have been slower."""
        if not self.wait_for(phase, number):
            return
        end, begun = time.monotonic() + seconds, len(self.phases())
        while time.monotonic() < end and len(self.phases()) == begun:
            time.sleep(0.01)

    def stop(self, sign=signal.SIGKILL):
        """Sends a signal; returns the exit code."""
        if self._process.exitcode is None:
            os.kill(self.pid, sign)
        return self.end()[0]

    def end(self):
        """Exit code, output and errors of the process, after its end."""
        self._process.join(SECONDS)
        assert self._process.exitcode is not None, f"the process has not ended after {SECONDS} s"
        return self._process.exitcode, self._files["stdout"].read_text(), self._files["stderr"].read_text()

    def complete(self):
        """Checks that the process ends without an error; returns its output."""
        code, output, errors = self.end()
        assert code == 0, errors[-3000:]
        return output

    def refused(self):
        """Checks that the process ends with one line of error and exit code 2; returns the line."""
        code, _, errors = self.end()
        assert code == 2, (code, errors[-3000:])
        [line] = errors.splitlines()
        assert line.startswith("error: "), line
        return line.removeprefix("error: ")


def environment(*folders):
    """The environment of a program as a user starts it, which hides TensorFlow's banners; folders to import from."""
    variables = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return variables | {"PYTHONPATH": os.pathsep.join(map(str, (*folders, SCRIPT.parents[1])))}


def _main(words, output, files, fault, before, graph):
    """The process of a run."""
    tf.config.run_functions_eagerly(not graph)
    warnings.filterwarnings("ignore", "Even though the `tf.config.experimental_run_functions_eagerly` option is set")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(files[name], os.O_WRONLY | os.O_APPEND), number)
    phases = os.open(files["phases"], os.O_WRONLY | os.O_APPEND)
    for phase, (owner, name) in PHASES.items():
        setattr(owner, name, _noted(getattr(owner, name), phase, phases, fault, output))
    if before:
        before()
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit:
        raise
    except BaseException:  # as the interpreter does, without what `multiprocessing` adds
        traceback.print_exc()
        sys.exit(1)


def _noted(method, phase, file, fault, output):
    count = 0

    def noted(*arguments, **options):
        nonlocal count
        count += 1
        os.write(file, f"{phase} {_now()}\n".encode())
        if phase == "export":
            tf.config.run_functions_eagerly(False)
        if fault and fault[:2] == (phase, count):
            fault[2](output)
        return method(*arguments, **options)

    return noted


# Faults -------------------------------------------------------------------------------------------------------------


def no_large_files(folder):
    """From now on, no file of the process can grow beyond 20,000 bytes; models and states of runs are larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def fill(folder):
    """Fills the disk of a folder with the file `filler` in it."""
    with open(folder / "filler", "ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC


# Results ------------------------------------------------------------------------------------------------------------


def weights(output):
    """Weights and optimizer of OUTPUT/model.keras and OUTPUT/best.keras."""
    models = [keras.saving.load_model(output / name) for name in ("model.keras", "best.keras")]
    return [np.array(variable) for model in models for variable in [*model.weights, *model.optimizer.variables]]


def check_equal(output, other):
    """Weights, optimizer, history and summary of two runs are the same, bit for bit."""
    for one, two in zip(weights(output), weights(other), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (output / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    texts = [(folder / "summary.json").read_text().replace(str(folder), "OUTPUT") for folder in (output, other)]
    one, two = ({k: v for k, v in json.loads(text).items() if k not in TIMES} for text in texts)
    assert one == two


def epochs(output):
    """The epochs of the rows of the history."""
    with open(output / "history.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def files(output):
    """The files of a run but the event files, whose number is that of its processes."""
    names = (str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    return sorted(name for name in names if ".tfevents." not in name)
