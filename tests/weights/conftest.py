"""Fixtures for the helper modules in this folder, which cannot be imported because tests are not a package."""

import importlib.util
import pathlib

import pytest


def load_module(name, folder="weights"):
    """A module of a folder of the tests, by default of this one."""
    path = pathlib.Path(__file__).parents[1] / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def names():
    """The module names.py: arrays under published names."""
    return load_module("names")


@pytest.fixture(scope="session")
def torch_writer():
    """The module torch_writer.py: files as torch.save writes them."""
    return load_module("torch_writer")


@pytest.fixture(scope="session")
def reference():
    """The module reference_matterport.py: matterport's network in plain Keras layers."""
    return load_module("reference_matterport")


@pytest.fixture(scope="session")
def generated():
    """The module generated.py of the parity tests: names and shapes of the original projects."""
    return load_module("generated", "parity")
