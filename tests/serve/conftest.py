"""The service in this process, around a model of a few lines of NumPy."""

import pathlib
import sys

import pytest

for needed in ("fastapi", "httpx", "prometheus_client", "python_multipart", "uvicorn"):
    pytest.importorskip(needed, reason="needs the extra serve")
sys.path.insert(0, str(pathlib.Path(__file__).parent))

from serving import Client, Model


@pytest.fixture
def model():
    """A model that finds a bright square."""
    return Model()


@pytest.fixture
def start():
    """Function of a model, or models by name, and settings to a client of the service."""
    clients = []

    def client(models, **settings):
        models = {"squares": models} if isinstance(models, Model) else models
        clients.append(Client(models, **settings))
        return clients[-1]

    yield client
    for each in clients:
        each.close()


@pytest.fixture
def client(start, model):
    """A client of the service with one model."""
    return start(model)
