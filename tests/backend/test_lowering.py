"""The implementation that an operation uses, by traced graph and device."""

import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.cli import main

OPERATIONS = ("roi_align", "roi_pool", "nms", "mask_rows")


def chosen():
    return [backend.lowering(operation) for operation in OPERATIONS]


def traced(**options):
    """The implementations chosen while a function is traced."""
    seen = []

    @tf.function(**options)
    def function(x):
        seen.append(chosen())
        return x + 1

    function(tf.constant(1.0))
    return seen[0]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(backend, "has_gpu", lambda: False)


def test_dynamic_implementations_in_a_graph_and_static_ones_under_xla():
    assert traced() == ["sparse", "sorted", "combined", "active"]
    assert traced(jit_compile=True) == ["gather", "gather", "fixed_point", "all"]


def test_a_gpu_gathers_in_a_graph_too(monkeypatch):
    monkeypatch.setattr(backend, "has_gpu", lambda: True)
    assert chosen() == ["gather", "gather", "combined", "active"]


def test_info_prints_the_implementations(capsys, monkeypatch):
    monkeypatch.delenv("KMR_WINOGRAD", raising=False)
    assert main(["info"]) == 0
    rows = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "RoIAlign sparse, NMS combined" in rows["implementations, graph"]
    assert "RoIAlign gather, NMS fixed_point" in rows["implementations, XLA"]
    for graph, form in (("graph", "winograd"), ("XLA", "direct")):
        assert rows[f"implementations, {graph}"].endswith(f"large 3×3 convolutions at inference {form}")
    assert rows["fastest precision"].split()[-1] in ("float32", "mixed_bfloat16")
