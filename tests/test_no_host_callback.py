"""The steps that XLA compiles never leave the device: no callback, no infeed, no program on the host.

Also tests, on the CPU, the step that a bare `compile()` gives if a GPU is present.
"""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.backend.keras_internals import flatten_layers
from keras_maskrcnn.layers import RoIAlign, RoIPool

ROOT = pathlib.Path(__file__).parents[1]
# Instructions of HLO that exchange data with the host while a program runs.
TRANSFERS = {"infeed", "outfeed", "send", "send-done", "recv", "recv-done"}
# Libraries that XLA calls on the device itself. Every other target of a call counts as the host.
LIBRARIES = ("__onednn$", "__eigen", "TopK", "SliceToDynamic", "PadToStatic")
CALL = re.compile(r'custom_call_target="([^"]*)"')
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = .*?[\]})] ([a-z][a-z0-9-]*)\(")

TINY = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "batch"},
    "fpn_channels": 16,
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,))},
    "proposals": {"pre_nms": 50, "post_nms": 20},
    "rpn_sampling": {"size": 16},
    "box_sampling": {"size": 16},
    "box_stage": {"width": 16},
    "mask_stage": {"width": 8, "depth": 1},
    "detection": {"max_detections": 5},
    "image_size": (64, 64),
    "seed": 7,
}


def leaving(program):
    """The lines of an HLO text that leave the device: list of str."""
    return [line.strip() for line in program.splitlines() if _leaves(line)]


def _leaves(line):
    call, instruction = CALL.search(line), INSTRUCTION.match(line)
    if call:
        return not call[1].startswith(LIBRARIES)
    return bool(instruction) and instruction[1] in TRANSFERS


@pytest.fixture(scope="module")
def batch():
    shapes = data.Shapes(2, image_size=(64, 64), seed=5, object_size=(12, 30))
    x, y = next(iter(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, backend="numpy")))
    return keras.tree.map_structure(tf.constant, (dict(x), dict(y)))


def tiny(**overrides):
    return MaskRCNN(3, **{**TINY, **overrides})


@pytest.mark.parametrize(
    ("step", "policy", "pyramid"),
    [
        *(
            pytest.param(*case, True, marks=pytest.mark.slow)
            for case in (("train", "mixed_bfloat16"), ("test", "float32"), ("predict", "mixed_bfloat16"))
        ),
        # These programs have the same kinds of operations, and half as many.
        ("test", "float32", False),
        ("predict", "mixed_bfloat16", False),
    ],
)
def test_compiled_step_stays_on_the_device(step, policy, pyramid, one_level, batch):
    model = tiny(dtype=policy, **({} if pyramid else one_level))
    model.compile(keras.optimizers.SGD(1e-2, momentum=0.9), jit_compile=True)
    given = batch[:1] if step == "predict" else batch
    function = tf.function(getattr(model, f"{step}_step"), jit_compile=True)
    program = function.experimental_get_compiler_ir(given)(stage="optimized_hlo")
    # The program has the whole step: the convolutions and the loop of NMS.
    assert "convolution" in program and " while(" in program
    assert leaving(program) == []


# `compile()` without arguments ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bare_compile_with_a_gpu_gives_a_step_that_works(batch, monkeypatch):
    model = tiny()
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    # Keras reads this list in `compile`; the steps then run on the CPU.
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu])
    model.compile()
    monkeypatch.undo()
    assert model.jit_compile is True
    assert np.isfinite(model.train_on_batch(*batch, return_dict=True)["loss"])
    assert set(model.detect(batch[0]["images"].numpy()[0], score_threshold=0.0)) >= {"boxes", "masks"}


def test_all_layers_of_the_model_compile():
    assert all(layer.supports_jit for layer in flatten_layers(tiny()))


@pytest.mark.parametrize(
    "kind, implementation",
    [(kind, name) for kind in (RoIAlign, RoIPool) for name in kind.IMPLEMENTATIONS],
)
def test_layer_rejects_xla_only_where_it_has_no_static_lowering(kind, implementation):
    layer = kind(2, (4,), implementation=implementation)
    features, boxes = [tf.ones((1, 8, 8, 3))], tf.constant([[[0.0, 0, 16, 16]]])
    layer(features, boxes)
    run = tf.function(layer, jit_compile=True)
    if layer.supports_jit:
        assert run(features, boxes).shape == (1, 1, 2, 2, 3)
    else:
        with pytest.raises((tf.errors.OpError, ValueError, TypeError)):
            run(features, boxes)


@pytest.mark.slow
def test_dynamic_lowering_set_by_name_turns_the_compiled_step_off(batch):
    model = tiny(regions={"implementation": "sparse"})
    with pytest.warns(UserWarning, match="jit_compile"):
        model.compile(jit_compile=True)
    assert model.jit_compile is False
    assert np.isfinite(model.train_on_batch(*batch, return_dict=True)["loss"])


# The checker itself -----------------------------------------------------------------------------------------------


def test_checker_finds_only_instructions_that_leave_the_device():
    program = """
    HloModule step, entry_computation_layout={(f32[2]{0})->f32[2]{0}}
      %p = f32[2]{0} parameter(0)
      %send.1 = (f32[2]{0}, u32[], token[]) send(%p, %token), channel_id=1, is_host_transfer=true
      %recv-done.2 = (f32[2]{0}, token[]) recv-done(%recv.2), channel_id=1
      %infeed.3 = ((f32[2]{0}), token[]) infeed(%token)
      ROOT outfeed.4 = token[] outfeed(f32[2]{0} %p, token[] %token)
      %custom-call.5 = (f32[2]{0}) custom-call(%p), custom_call_target="xla_ffi_python_cpu_callback"
      %custom-call.6 = (f32[2]{0}) custom-call(%p), custom_call_target="xla_python_gpu_callback"
      %custom-call.7 = f32[2]{0} custom-call(%p), custom_call_target="__onednn$matmul"
      %sent = f32[2]{0} add(%p, %p), metadata={op_name="outfeed(send(recv"}
      %fusion = f32[2]{0} fusion(%sent), kind=kLoop, calls=%recv
    """
    found = leaving(program)
    assert [re.search(r"([a-z-]+)\.\d", line)[1] for line in found] == [
        "send",
        "recv-done",
        "infeed",
        "outfeed",
        "custom-call",
        "custom-call",
    ]


def test_checker_finds_the_callback_that_jax_writes():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, "-c", CALLBACK], env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-2000:]
    with_callback, without = process.stdout.split("----")
    assert "custom-call" in with_callback
    assert len(leaving(with_callback)) == 1
    assert leaving(without) == []


CALLBACK = """
import jax, numpy as np
shape = jax.ShapeDtypeStruct((3,), np.float32)
callback = lambda x: 2 * jax.pure_callback(lambda v: np.asarray(v) + 1, shape, x)
for function in (callback, lambda x: 2 * jax.numpy.sin(x)):
    print(jax.jit(function).lower(np.ones(3, np.float32)).compile().as_text())
    print("----" if function is callback else "")
"""


def test_function_that_calls_python_does_not_compile():
    step = tf.function(lambda x: tf.py_function(lambda v: v + 1, [x], tf.float32), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="EagerPyFunc"):
        step(tf.ones(3))


@pytest.mark.slow
def test_jax_compiles_the_same_step_without_leaving_the_device():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", JAX_STEP.format(tiny=TINY)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert "convolution" in process.stdout and " while(" in process.stdout
    assert leaving(process.stdout) == []


JAX_STEP = """
import sys
import jax, keras, numpy as np
from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.backend.keras_internals import flatten_layers
model = MaskRCNN(3, **{tiny!r})
model.compile(keras.optimizers.SGD(1e-2))
shapes = data.Shapes(2, image_size=(64, 64), seed=5, object_size=(12, 30))
batch = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, backend="numpy")[0]
values = lambda variables: [variable.value for variable in variables]
state = tuple(values(variables) for variables in (
    model.trainable_variables, model.non_trainable_variables, model.optimizer.variables, model.metrics_variables))
print(jax.jit(model.train_step).lower(state, batch).compile().as_text())
assert "tensorflow" not in sys.modules
"""
