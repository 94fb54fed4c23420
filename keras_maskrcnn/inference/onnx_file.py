"""ONNX: one file, images in, detections out, with preprocessing inside; ONNX Runtime runs it, without this package."""

import json

import numpy as np

from keras_maskrcnn import atomic
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.inference.exported import (
    CLASS_NAMES,
    DESCRIPTION,
    Batches,
    Exported,
    class_names,
    engine_description,
    read_description,
    required,
    variable,
)
from keras_maskrcnn.inference.graph import CANVAS, THRESHOLDS, engine_graph, network_outputs

OPSET = 18


def write(model, path, placement, batch=None):
    """Write a model as an ONNX file, see `inference.export.export`.

    Args:
        model: an `ImageModel`.
        path: the file.
        placement: `Placement` of the images.
        batch: number of images, or None for any.
    """
    with required(path, "onnx"):
        import onnx
        import tf2onnx
    graph = engine_graph(model, placement, batch, dynamic=("mask_rows",))
    # Otherwise tf2onnx copies the graph, weights included, before each of its passes.
    with variable("TF2ONNX_CATCH_ERRORS", "FALSE"):
        converted, _ = tf2onnx.convert.from_function(graph.function, graph.signature, opset=OPSET)
    _hide(converted.graph, graph, onnx.numpy_helper)
    _name_sizes(converted.graph)
    properties = {DESCRIPTION: json.dumps(engine_description(model, placement, batch))}
    onnx.helper.set_model_props(converted, {**properties, CLASS_NAMES: class_names(model)})
    with atomic.replacing(path) as new:
        onnx.save(converted, str(new))


def _name_sizes(graph):
    """Names for the open sizes of the images, and for the number of images in the outputs."""
    for value in (*graph.input, *graph.output):
        names = ("batch", "height", "width") if value.name == "images" else ("batch",)
        for name, size in zip(names, value.type.tensor_type.shape.dim, strict=False):
            if not size.HasField("dim_value"):
                size.dim_param = name


def _hide(graph, parts, numpy_helper):
    """Keeps the inner tensors by name, but not as outputs of the file, and makes constants of the thresholds."""
    outputs, inputs = list(graph.output), list(graph.input)
    del graph.output[:], graph.input[1:]
    order = {name: number for number, name in enumerate(parts.public)}
    graph.output.extend(sorted((value for value in outputs if value.name in order), key=lambda v: order[v.name]))
    known = {value.name for value in graph.value_info}
    inner = [value for value in outputs if value.name not in order]
    graph.value_info.extend(value for value in [*inner, *inputs[1:]] if value.name not in known)
    graph.initializer.extend(numpy_helper.from_array(np.float32(value), name) for name, value in parts.defaults.items())


class OnnxFile(Exported):
    """Reads what `write` wrote, and runs it with ONNX Runtime; see `exported.Exported`.

    Args:
        path: the ONNX file.

    Raises:
        DataError: it is no ONNX file, or one without this library's description; or a package is missing.
    """

    def __init__(self, path):
        with required(path, "onnx"):
            import onnx
            import onnxruntime
        try:
            model = onnx.load(str(path))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise DataError(path, "is not an ONNX file") from error
        except Exception as error:  # protobuf's, whose class depends on its implementation
            if "protobuf" not in type(error).__module__:
                raise
            raise DataError(path, "is not an ONNX file") from error
        properties = {entry.key: entry.value for entry in model.metadata_props}
        content = read_description(path, properties.get(DESCRIPTION))
        super().__init__(path, content)
        names = network_outputs(self.schema)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            _cut(model.graph, list(names.values()))
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's have no base of their own
            raise DataError(path, "its graph is damaged: ONNX Runtime does not load it") from error

        def run(inputs):
            found = session.run(list(names.values()), {name: inputs[name] for name in taken})
            return dict(zip(names, found, strict=True))

        taken = [value.name for value in session.get_inputs()]
        self.use(Batches(content, run))


def _cut(graph, wanted):
    """Leaves the nodes between the tensors in `CANVAS`, with the thresholds, and the wanted ones."""
    values = {value.name: value for value in graph.value_info}
    inputs = [values[name] for name in (*CANVAS, *THRESHOLDS) if name in values]
    needed, kept = set(wanted), []
    for node in reversed(graph.node):  # in topological order
        if any(name in needed and name not in CANVAS for name in node.output):
            kept.append(node)
            needed.update(_read(node))
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed and tensor.name not in THRESHOLDS]
    for field, entries in (
        (graph.node, kept[::-1]),
        (graph.initializer, initializers),
        (graph.input, [value for value in inputs if value.name in needed]),
        (graph.output, [values[name] for name in wanted]),
    ):
        entries = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        del field[:]
        field.extend(entries)
    del graph.value_info[:]


def _read(node):
    """Names of all tensors that a node reads, those of its inner graphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            names.update(value.name for value in inner.output)
            for part in inner.node:
                names |= _read(part)
    return names
