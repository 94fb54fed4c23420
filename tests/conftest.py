"""Shared fixtures: quiet TensorFlow, fixed seeds, and the folder of real data sets."""

import os
import pathlib

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
def kmr_data():
    """Folder of the real data sets, named by the variable KMR_DATA."""
    folder = os.environ.get("KMR_DATA")
    if not folder:
        pytest.skip("set KMR_DATA to the folder of real data sets to run this test")
    return pathlib.Path(folder)
