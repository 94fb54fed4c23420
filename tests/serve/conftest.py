"""The service in this process, around a model of a few lines of NumPy."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture
def model():
    """A model that finds a bright square."""
    from serving import Model

    return Model()


@pytest.fixture
def start():
    """Function of a model, or models by name, and settings to a client of the service."""
    from serving import Client

    clients = []

    def client(models, **settings):
        models = models if isinstance(models, dict) else {"squares": models}
        clients.append(Client(models, **settings))
        return clients[-1]

    yield client
    for each in clients:
        each.close()


@pytest.fixture
def client(start, model):
    """A client of the service with one model."""
    return start(model)
