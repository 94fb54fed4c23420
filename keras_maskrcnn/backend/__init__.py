"""The one place that asks which Keras backend runs, and what kind of graph is being traced.

Two kinds of lowering live side by side in this package and give the same numbers: *static* ones (fixed shapes, pure
`keras.ops`: XLA, JAX and torch need them) and *dynamic* ones (row counts known only at run time, TensorFlow ops without
an XLA kernel: much faster on a CPU). `static_shapes()` tells a layer, while it is traced, which of the two it may use.

The TensorFlow modules of this folder are imported by the functions that need them, never at import.
"""

import contextlib
import contextvars

import keras

_STATIC_SHAPES = contextvars.ContextVar("keras_maskrcnn_static_shapes", default=None)


def is_tensorflow():
    """Whether Keras runs on TensorFlow."""
    return keras.backend.backend() == "tensorflow"


def static_shapes():
    """Whether the code that is being traced must have static shapes and XLA kernels.

    Returns:
        bool: what the innermost `static_shapes_scope` says; without one, True on every backend but TensorFlow, and on
        TensorFlow True inside a `tf.function(jit_compile=True)` (functions nested in it included), else False.
    """
    forced = _STATIC_SHAPES.get()
    if forced is not None:
        return forced
    return not is_tensorflow() or _traced_for_xla()


@contextlib.contextmanager
def static_shapes_scope(enabled):
    """Says for a block of code what `static_shapes()` answers there.

    Args:
        enabled: bool, or None to go back to detection.
    """
    token = _STATIC_SHAPES.set(None if enabled is None else bool(enabled))
    try:
        yield
    finally:
        _STATIC_SHAPES.reset(token)


def lowering(operation):
    """Which of its implementations an operation runs on, by device and by the graph that is being traced.

    Args:
        operation: "roi_align", "nms" or "mask_rows" (which regions the mask head computes).

    Returns:
        str: of "roi_align" "sparse" or "gather", of "nms" "combined" or "fixed_point", of "mask_rows" "active" or
        "all". All give the same numbers; README's *Figures* have what they cost.
    """
    dynamic, static = {
        "roi_align": ("gather" if has_gpu() else "sparse", "gather"),
        "nms": ("combined", "fixed_point"),
        "mask_rows": ("active", "all"),
    }[operation]
    return static if static_shapes() else dynamic


def has_gpu():
    """Whether TensorFlow sees a GPU (False on other backends, which take the static lowering anyway)."""
    if not is_tensorflow():
        return False
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


def _traced_for_xla():
    """Whether the current TensorFlow graph, or one that it is nested in, will be compiled by XLA.

    `tf.function(jit_compile=True)` enters an XLA control-flow context while it traces; a nested function, a loop body
    or a branch has its own graph, whose `outer_graph` leads back to it.
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
