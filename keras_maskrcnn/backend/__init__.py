"""Detection of the Keras backend and of the kind of graph being traced, and the code that depends on either.

Some operations have two implementations with equal results: a *static* one (fixed shapes, pure `keras.ops`; required
by XLA, JAX and torch) and a *dynamic* one (row counts known only at run time, TensorFlow ops without an XLA kernel;
much faster on a CPU). `static_shapes()` returns which of the two may be used in the current trace.

The package `backend.tensorflow` is imported inside the functions that use it, never at import.
"""

import contextlib
import contextvars
import functools
import os
import pathlib

import keras

_STATIC_SHAPES = contextvars.ContextVar("keras_maskrcnn_static_shapes", default=None)
_DYNAMIC: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("keras_maskrcnn_dynamic", default=())
_INFERENCE = contextvars.ContextVar("keras_maskrcnn_inference", default=False)


def is_tensorflow():
    """Whether Keras runs on TensorFlow."""
    return keras.backend.backend() == "tensorflow"


def static_shapes():
    """Whether the current trace requires static shapes and XLA kernels.

    Returns:
        bool: the value of the innermost `static_shapes_scope`; without a scope, True on every backend other than
        TensorFlow, and on TensorFlow True inside a `tf.function(jit_compile=True)` (nested functions included).
    """
    forced = _STATIC_SHAPES.get()
    if forced is not None:
        return forced
    return not is_tensorflow() or _traced_for_xla()


@contextlib.contextmanager
def static_shapes_scope(enabled):
    """Context manager that sets the value of `static_shapes()`.

    Args:
        enabled: bool, or None for automatic detection.
    """
    token = _STATIC_SHAPES.set(None if enabled is None else bool(enabled))
    try:
        yield
    finally:
        _STATIC_SHAPES.reset(token)


@contextlib.contextmanager
def dynamic_scope(*operations):
    """Context manager in which operations of `lowering` are dynamic, also where all others have static shapes.

    Args:
        *operations: names, as those of `lowering`.
    """
    token = _DYNAMIC.set(operations)
    try:
        yield
    finally:
        _DYNAMIC.reset(token)


@contextlib.contextmanager
def inference_scope():
    """Context manager for traces that no gradient is taken of; see `lowering("large_conv")`."""
    token = _INFERENCE.set(True)
    try:
        yield
    finally:
        _INFERENCE.reset(token)


def lowering(operation, dtype="float32"):
    """Name of the implementation that an operation uses on this device and in the current trace.

    Args:
        operation: "roi_align", "roi_pool", "nms", "mask_rows" (the regions that the mask head computes) or "large_conv"
            (3×3 convolutions of stride 1 with many channels).
        dtype: compute dtype, which "large_conv" depends on.

    Returns:
        str: "sparse" or "gather" for "roi_align", "sorted" or "gather" for "roi_pool", "combined" or "fixed_point" for
        "nms", "active" or "all" for "mask_rows", "winograd" or "direct" for "large_conv": "winograd" in an
        `inference_scope` without a GPU, in float32 and, on a processor without AMX, in bfloat16, unless the environment
        variable `KMR_WINOGRAD` is 0. Results are equal up to rounding; docs/speed.md compares the speed.
    """
    dynamic, static = {
        "roi_align": ("gather" if has_gpu() else "sparse", "gather"),
        "roi_pool": ("gather" if has_gpu() else "sorted", "gather"),
        "nms": ("combined", "fixed_point"),
        "mask_rows": ("active", "all"),
        "large_conv": ("winograd" if _has_winograd(dtype) else "direct", "direct"),
    }[operation]
    return static if static_shapes() and operation not in _DYNAMIC.get() else dynamic


def _has_winograd(dtype):
    if not _INFERENCE.get() or os.environ.get("KMR_WINOGRAD") == "0" or has_gpu():
        return False
    # AMX multiplies matrices of bfloat16, and has nothing for float32, in which the algorithm computes.
    return dtype == "float32" or (dtype == "bfloat16" and "amx_bf16" not in processor_flags())


def has_gpu():
    """Whether the backend has a GPU: TensorFlow or JAX; False on other backends."""
    if is_tensorflow():
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    return bool(_jax_gpus())


@functools.cache
def processor_flags():
    """Names that Linux has for the instructions of this processor: frozenset of str, empty on other systems."""
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else ()
    return frozenset(next((line.split(":")[1].split() for line in lines if line.startswith("flags")), ()))


def compute_capabilities():
    """NVIDIA's compute capability of each GPU of this process: list of (major, minor), None where it has none."""
    if is_tensorflow():
        import tensorflow as tf

        details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
        return [gpu.get("compute_capability") for gpu in details]
    names = [str(getattr(gpu, "compute_capability", "")) for gpu in _jax_gpus()]
    numbers = [name.split(".") for name in names]  # "8.0"; other makers' names are no numbers: "gfx90a"
    return [tuple(map(int, number)) if all(n.isdigit() for n in number) else None for number in numbers]


def _jax_gpus():
    if keras.backend.backend() != "jax":
        return []
    import jax

    return [device for device in jax.local_devices() if device.platform == "gpu"]


def _traced_for_xla():
    """Whether the current TensorFlow graph or one of its outer graphs will be compiled by XLA.

    `tf.function(jit_compile=True)` enters an XLA control-flow context while tracing. Nested functions, loop bodies and
    branches have graphs of their own, linked by `outer_graph`.
    """
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False
