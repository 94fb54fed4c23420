"""The dtype policy by the capability of the GPUs or the flags of the processor."""

import types

import keras
import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.backend import precision


@pytest.fixture(params=["tensorflow", "jax"])
def machine(request, monkeypatch):
    """Function that sets the compute capabilities of the GPUs, as (major, minor) or None, and the processor's flags."""
    monkeypatch.setattr(keras.backend, "backend", lambda: request.param)

    def make(gpus, processor=False):
        monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: processor)
        if request.param == "tensorflow":
            details = [{"device_name": "a GPU", **({"compute_capability": c} if c else {})} for c in gpus]
            monkeypatch.setattr(
                tf.config, "list_logical_devices", lambda kind: [f"{kind}:{i}" for i in range(len(gpus))]
            )
            monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: list(range(len(gpus))))
            monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details[gpu])
            return
        jax = pytest.importorskip("jax")
        devices = [fake(platform="gpu", **({"compute_capability": f"{c[0]}.{c[1]}"} if c else {})) for c in gpus]
        monkeypatch.setattr(jax, "local_devices", lambda: devices or [fake(platform="cpu")])

    return make


fake = types.SimpleNamespace


@pytest.mark.parametrize(
    ("gpus", "policy"),
    [
        ([(7, 0)], "float32"),  # V100
        ([(7, 5)], "float32"),  # T4
        ([(8, 0)], "mixed_bfloat16"),  # A100
        ([(9, 0)], "mixed_bfloat16"),  # H100
        ([(12, 0)], "mixed_bfloat16"),
        ([(8, 6), (7, 5)], "float32"),  # the slowest of several decides
        ([None], "float32"),  # not NVIDIA's
    ],
)
def test_a_gpu_computes_in_bfloat16_from_compute_capability_8(machine, gpus, policy):
    machine(gpus, processor=True)
    assert backend.has_gpu()
    assert precision.fastest_policy() == policy


@pytest.mark.parametrize(("processor", "policy"), [(True, "mixed_bfloat16"), (False, "float32")])
def test_without_a_gpu_the_processor_decides(machine, processor, policy):
    machine([], processor)
    assert not backend.has_gpu()
    assert precision.fastest_policy() == policy


def test_jax_reports_capabilities_that_are_no_numbers(monkeypatch):
    """A GPU of another maker has a name such as gfx90a in place of a number."""
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(jax, "local_devices", lambda: [fake(platform="gpu", compute_capability="gfx90a")])
    assert precision.fastest_policy() == "float32"
