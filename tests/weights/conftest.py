"""Helpers of these tests that are modules in this folder, handed out as fixtures since tests are no package."""

import importlib.util
import pathlib

import pytest


def beside(name):
    """A module of this folder."""
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def names():
    """The module names.py: arrays under published names."""
    return beside("names")


@pytest.fixture(scope="session")
def reference():
    """The module reference_matterport.py: matterport's network in plain Keras layers."""
    return beside("reference_matterport")
