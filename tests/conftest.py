"""Shared fixtures: quiet TensorFlow, fixed seeds, and the folder of real data sets."""

import os
import pathlib
import runpy
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What XLA does to a program is as ever; only the machine code for it is made in half the time. Run once, it need not be
# fast. Programs that tests start inherit this.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import pytest


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same random state, whatever ran before it."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Function that runs a Python file as a program in this process, which has imported TensorFlow already.

    It takes the path of the file and the arguments, and returns a `CompletedProcess`.
    """

    def run(path, *arguments):
        words = [str(word) for word in (path, *arguments)]
        monkeypatch.syspath_prepend(str(pathlib.Path(path).parent))
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        if isinstance(code, str):  # as the interpreter does
            print(code, file=sys.stderr)
            code = 1
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


@pytest.fixture
def eager_functions():
    """Runs what is decorated with `tf.function` eagerly: tracing a whole model takes ten times as long as one call."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def kmr_data():
    """Folder of the real data sets, named by the variable KMR_DATA."""
    folder = os.environ.get("KMR_DATA")
    if not folder:
        pytest.skip("set KMR_DATA to the folder of real data sets to run this test")
    return pathlib.Path(folder)
