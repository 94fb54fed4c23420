"""RoIPool, RoIWarp, and RoIAlign with maxima or one sample against torchvision's arrays: all lowerings, and JAX."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.layers import RoIAlign, RoIPool, RoIWarp

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "roi_pool.npz"
SAMPLED = [
    f"{kind}_{options}{suffix}"
    for kind in ("align", "warp")
    for options in ("1_average", "2_average", "2_max")
    for suffix in ("", "_aligned")
]


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN))


def layer_of(name, implementation):
    """Layer of a golden case."""
    if name.startswith("pool"):
        return RoIPool(2 if name == "pool_2" else 7, (8,), implementation)
    kind, ratio, reduce, *aligned = name.split("_")
    options = dict(sampling_ratio=int(ratio), reduce=reduce, aligned=bool(aligned), implementation=implementation)
    return {"align": RoIAlign, "warp": RoIWarp}[kind](7, (8,), **options)


def inputs_of(golden, name):
    """Features, cotangent, boxes and image index of a golden case."""
    rows = [golden[key] for key in ("cotangent", "boxes", "image_index")]
    if name.startswith("pool"):
        return golden["equal"], *rows
    return golden["different"], *(values[golden["clear"]] for values in rows)


def check(golden, name, implementation, dtype="float32", relative=1e-4, **function):
    """Compares the values and gradients of a golden case.

    Boxes are arguments of the graph: graph optimisation computes constants exactly, and other values not always.
    """
    layer = layer_of(name, implementation)
    bins = layer.output_size

    @tf.function(**function)
    def run(features, cotangent, boxes, image_index):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = layer.align_rows([features], boxes, image_index)
        return output, tf.convert_to_tensor(tape.gradient(output, features, cotangent))

    features, cotangent, boxes, image_index = inputs_of(golden, name)
    found = run(tf.cast(features, dtype), tf.cast(cotangent[:, :bins, :bins], dtype), boxes, image_index)
    for one, wanted in zip(found, (golden[name], golden[name + "_gradient"]), strict=True):
        assert one.dtype == dtype
        one, scale = tf.cast(one, "float32"), np.abs(wanted).max()
        np.testing.assert_allclose(one, wanted, rtol=0, atol=relative * scale)


@pytest.mark.parametrize("implementation", ["gather", "sorted"])
@pytest.mark.parametrize("name", ["pool", "pool_2"])
def test_pool(golden, name, implementation):
    check(golden, name, implementation, relative=1e-6)


@pytest.mark.parametrize("implementation", ["gather", "sparse"])
@pytest.mark.parametrize("name", SAMPLED)
def test_samples(golden, name, implementation):
    check(golden, name, implementation)


@pytest.mark.parametrize("name", ["warp_2_average", "warp_2_average_aligned"])
def test_warp_by_crop_and_resize(golden, name):
    check(golden, name, "tf_image")


@pytest.mark.parametrize("name", ["pool", "align_2_max", "warp_1_average_aligned"])
def test_under_xla(golden, name):
    check(golden, name, "auto", jit_compile=True)


@pytest.mark.parametrize("implementation", ["gather", "sorted"])
def test_bfloat16_features(golden, implementation):
    # Features are exact in bfloat16, and so are their maxima; sums of the gradient are rounded once.
    check(golden, "pool", implementation, "bfloat16", relative=4e-3)


def test_bfloat16_maxima(golden):
    # Rounding the features makes some samples equal: values are near the golden ones, and both lowerings agree.
    features, _, boxes, image_index = inputs_of(golden, "align_2_max")
    found = [
        layer_of("align_2_max", name).align_rows([tf.cast(features, "bfloat16")], boxes, image_index)
        for name in ("gather", "sparse")
    ]
    assert found[0].dtype == "bfloat16"
    wanted, *found = golden["align_2_max"], *(tf.cast(one, "float32").numpy() for one in found)
    np.testing.assert_allclose(found[0], wanted, atol=1e-2 * np.abs(wanted).max())
    np.testing.assert_allclose(found[0], found[1], atol=4e-3 * np.abs(wanted).max())


def test_saved_model_with_default_options(golden, tmp_path):
    layer, module = layer_of("pool", "sorted"), tf.Module()
    specs = [tf.TensorSpec((None, 36, 16, 2)), tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)]
    module.run = tf.function(lambda x, boxes, index: layer.align_rows([x], boxes, index), input_signature=specs)
    tf.saved_model.save(module, str(tmp_path))
    inputs = (golden[name] for name in ("equal", "boxes", "image_index"))
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path)).run(*inputs), golden["pool"])


IN_JAX = """
import sys
import jax, numpy as np
from keras_maskrcnn.layers import RoIAlign, RoIPool, RoIWarp
golden = np.load(sys.argv[1])
cases = {"pool": RoIPool(7, (8,)), "align_2_max": RoIAlign(7, (8,), reduce="max")}
cases["warp_1_average"] = RoIWarp(7, (8,), 1)
for name, layer in cases.items():
    clear = slice(None) if name == "pool" else golden["clear"]
    boxes, image_index, cotangent = (golden[key][clear] for key in ("boxes", "image_index", "cotangent"))
    def run(features):
        output = layer.align_rows([features], boxes, image_index)
        return (output * cotangent).sum(), output
    features = golden["equal" if name == "pool" else "different"]
    (_, output), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(features)
    for found, wanted in ((output, golden[name]), (gradient, golden[name + "_gradient"])):
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max(), name
assert "tensorflow" not in sys.modules
"""


def test_torchvision_on_jax(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", IN_JAX, str(GOLDEN)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
