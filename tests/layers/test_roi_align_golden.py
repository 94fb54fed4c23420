"""RoIAlign against torchvision's arrays, values and gradients: every lowering, under XLA, in bfloat16 and on JAX."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.layers.roi_align import RoIAlign

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "roi_align.npz"
CASES = ("one_level_unaligned", "one_level_aligned", "pyramid")
everywhere = pytest.mark.parametrize("implementation", ("gather", "sparse", "tf_image"))


def golden_case(name, implementation):
    """Layer, features, boxes, image index, cotangent, expected output and expected gradients of a golden case."""
    golden = np.load(GOLDEN)
    if name == "pyramid":
        layer = RoIAlign(7, canonical_size=56, implementation=implementation)
        levels = ("P2", "P3", "P4", "P5")
        gradients = [golden[f"pyramid_gradient_{level}"] for level in levels]
    else:
        layer = RoIAlign(7, strides=(8,), aligned=name.endswith("_aligned"), implementation=implementation)
        levels, gradients = ("P3",), [golden[name + "_gradient"]]
    features = [golden[level] for level in levels]
    return layer, features, golden["boxes"], golden["image_index"], golden["cotangent"], golden[name], gradients


def value_and_gradients(layer, features, boxes, image_index, cotangent, **function):
    """Output and gradients to every level, from one tf.function."""

    @tf.function(**function)
    def run(features, boxes, image_index, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = layer.align_rows(features, boxes, image_index)
        return output, tape.gradient(output, features, cotangent)

    output, gradients = run([tf.constant(f) for f in features], boxes, image_index, tf.constant(cotangent))
    return output.numpy(), [tf.convert_to_tensor(g).numpy() for g in gradients]


def assert_close(found, wanted, relative=1e-4):
    """Within `relative` of the scale of the expected values."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=relative * max(np.abs(wanted).max(), 1e-6))


@everywhere
@pytest.mark.parametrize("name", CASES)
def test_torchvision(implementation, name):
    layer, features, boxes, image_index, cotangent, output, gradients = golden_case(name, implementation)
    found, found_gradients = value_and_gradients(layer, features, boxes, image_index, cotangent)
    assert_close(found, output)
    for one, wanted in zip(found_gradients, gradients, strict=True):
        assert_close(one, wanted)


@pytest.mark.parametrize("name", CASES)
def test_torchvision_under_xla(name):
    layer, features, boxes, image_index, cotangent, output, gradients = golden_case(name, "auto")
    found, found_gradients = value_and_gradients(layer, features, boxes, image_index, cotangent, jit_compile=True)
    assert_close(found, output)
    for one, wanted in zip(found_gradients, gradients, strict=True):
        assert_close(one, wanted)


@everywhere
def test_bfloat16_features(implementation):
    layer, features, boxes, image_index, cotangent, *_ = golden_case("pyramid", implementation)
    features = [tf.cast(f, tf.bfloat16) for f in features]  # multiples of 1/16 below 4: exact in bfloat16
    wanted = golden_case("pyramid", implementation)[5:]
    found, gradients = value_and_gradients(layer, features, boxes, image_index, tf.cast(cotangent, tf.bfloat16))
    assert found.dtype == tf.bfloat16.as_numpy_dtype
    assert_close(found.astype("float32"), wanted[0], relative=1e-2)
    for one, other in zip(gradients, wanted[1], strict=True):
        assert one.dtype == tf.bfloat16.as_numpy_dtype
        assert_close(one.astype("float32"), other, relative=1e-2)


@pytest.mark.parametrize("implementation", ("sparse", "tf_image"))
def test_gradient_is_deterministic(implementation):
    # Many large boxes on few pixels: where TensorFlow's gradient of crop_and_resize is nondeterministic.
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((1, 32, 32, 64)).astype("float32")]
    boxes = np.concatenate([rng.uniform(0, 10, (300, 2)), rng.uniform(20, 32, (300, 2))], axis=1).astype("float32")
    layer = RoIAlign(7, strides=(1,), implementation=implementation)
    cotangent = rng.standard_normal((300, 7, 7, 64)).astype("float32")
    inputs = (layer, features, boxes, np.zeros(300, "int32"), cotangent)
    runs = [value_and_gradients(*inputs) for _ in range(5)]
    for output, gradients in runs[1:]:
        np.testing.assert_array_equal(output, runs[0][0])
        np.testing.assert_array_equal(gradients[0], runs[0][1][0])


IN_JAX = """
import sys
import jax, numpy as np
from keras_maskrcnn.layers.roi_align import RoIAlign
from keras_maskrcnn.ops.nms import nms
golden = np.load(sys.argv[1])
layer = RoIAlign(7, canonical_size=56)
boxes, image_index = golden["boxes"], golden["image_index"]

@jax.jit
def run(features):
    output = layer.align_rows(features, boxes, image_index)
    return (output * golden["cotangent"]).sum(), output

levels = ["P2", "P3", "P4", "P5"]
(_, output), gradients = jax.value_and_grad(run, has_aux=True)([golden[level] for level in levels])
assert np.abs(output - golden["pyramid"]).max() < 1e-4 * np.abs(golden["pyramid"]).max()
for level, gradient in zip(levels, gradients):
    wanted = golden[f"pyramid_gradient_{level}"]
    assert np.abs(gradient - wanted).max() < 1e-4 * np.abs(wanted).max(), level

golden = np.load(sys.argv[2])
indices, valid = jax.jit(lambda b, s, g: nms(b, s, 0.5, 120, g))(golden["boxes"], golden["scores"], golden["groups"])
np.testing.assert_array_equal(np.where(valid, indices, -1), golden["kept_0.5"])
assert "tensorflow" not in sys.modules
"""


def test_torchvision_on_jax(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[2]))
    command = [sys.executable, "-c", IN_JAX, str(GOLDEN), str(GOLDEN.with_name("nms.npz"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("implementation", ["sparse", "tf_image"])
def test_saved_model_with_default_options(implementation, tmp_path):
    layer, features, boxes, image_index, _, output, _ = golden_case("pyramid", implementation)
    module = tf.Module()
    specs = [[tf.TensorSpec(f.shape) for f in features], tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)]
    module.run = tf.function(layer.align_rows, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path))
    assert_close(tf.saved_model.load(str(tmp_path)).run(features, boxes, image_index).numpy(), output)
