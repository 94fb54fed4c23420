"""OpenVINO: an .xml and a .bin file, images in, detections out, with preprocessing inside; OpenVINO runs them alone."""

import json
import pathlib
import tempfile
import threading

from keras_maskrcnn import atomic
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.inference import openvino_operations
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
from keras_maskrcnn.inference.quantised import quantised
from keras_maskrcnn.inference.saved_model import save
from keras_maskrcnn.options import check_choice

HINTS = {"float32": "f32", "bfloat16": "bf16"}
# As on a build server: OpenVINO and NNCF report nothing to their makers. They start a process for each message, some
# 250 for a model, which takes longer than the export.
UNREPORTED = ("CI", "true")


@variable(*UNREPORTED)
def write(model, path, placement, batch=None, calibration=None):
    """Write a model as an OpenVINO IR, see `inference.export.export`.

    Args:
        model: an `ImageModel`.
        path: the .xml file; the weights lie beside it as .bin.
        placement: `Placement` of the images.
        batch: number of images, or None for any.
        calibration: images for INT8, see `quantised.quantised`; None for float32.
    """
    with required(path, "openvino"):
        import openvino
    graph = engine_graph(model, placement, batch, dynamic=("mask_rows",))
    converted = _converted(model, graph, openvino)
    shown = set()
    for result in converted.get_results():
        source = result.input_value(0)
        names, inner = source.get_names() & set(graph.public), source.get_names() & set(graph.network.values())
        # An inner tensor, or one that has a public name besides its inner one. It stays if nothing else keeps it.
        if names <= shown and not (inner and len(source.get_target_inputs()) == 1):
            converted.remove_result(result)
        shown |= names
    for parameter in converted.get_parameters():
        names = parameter.output(0).get_names() & set(graph.defaults)
        if names:
            (name,) = names
            constant = openvino.opset13.constant(graph.defaults[name], openvino.Type.f32, name=name)
            parameter.output(0).replace(constant.output(0))
            converted.remove_parameter(parameter)
    content = engine_description(model, placement, batch)
    if calibration is not None:
        converted = quantised(converted, calibration, path, batch)
        content |= {"precision": "int8", "calibration_images": len(calibration)}
    properties = {DESCRIPTION: json.dumps(content), CLASS_NAMES: class_names(model)}
    for name, text in properties.items():
        converted.set_rt_info(text, name)
    # The description comes last: without it there is no model.
    path = pathlib.Path(path)
    with atomic.replacing(path) as new, atomic.replacing(path.with_suffix(".bin")):
        openvino.save_model(converted, str(new), compress_to_fp16=False)
        path.unlink(missing_ok=True)


def _converted(model, graph, openvino):
    """The whole graph as an OpenVINO model.

    Its two parts are converted one by one: the optimisation of the whole would compute shapes of the network from the
    images, so that the canvas would be no cut through the graph.
    """
    placement, network = (_part(model, function, openvino) for function in graph.parts)
    openvino_operations.use_roi_align(network, graph.pooled, graph.network.values())
    openvino_operations.sort_fast(network)
    for node in placement.get_ops():  # both parts have a "Sum"; tools such as NNCF tell nodes apart by their names
        node.set_friendly_name(f"placement/{node.get_friendly_name()}")
    for parameter in network.get_parameters():
        (name,) = parameter.output(0).get_names()
        if name not in graph.defaults:
            parameter.output(0).replace(placement.output(name).get_node().input_value(0))
    thresholds = [p for p in network.get_parameters() if p.output(0).get_names() & set(graph.defaults)]
    return openvino.Model(network.get_results(), [*placement.get_parameters(), *thresholds], model.name)


def _part(model, function, openvino):
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, {"serving_default": function.get_concrete_function()})
        return openvino.convert_model(folder)


class OpenVinoFile(Exported):
    """Reads what `write` wrote, and runs it with OpenVINO; see `exported.Exported`.

    Args:
        path: the .xml file, with the .bin file beside it.
        precision: "float32", or "bfloat16" for faster convolutions and less exact boxes.

    Raises:
        DataError: they are no OpenVINO IR, or one without this library's description; or the package is missing.
    """

    def __init__(self, path, precision="float32"):
        check_choice("precision", precision, HINTS)
        with required(path, "openvino"), variable(*UNREPORTED):
            import openvino
        path = pathlib.Path(path)
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise DataError(path, f"the weights are missing: {weights.name} must lie beside it")
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise DataError(path, "is not an OpenVINO model") from error
        text = model.get_rt_info(DESCRIPTION).value if model.has_rt_info(DESCRIPTION) else None
        content = read_description(path, text)
        super().__init__(path, content)
        names = network_outputs(self.schema)
        # Without the hint OpenVINO computes in bfloat16 where the processor has it.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
        try:
            compiled = core.compile_model(_cut(model, list(names.values()), openvino), "CPU", options)
        except (KeyError, RuntimeError) as error:
            raise DataError(path, "its graph is damaged: OpenVINO does not load it") from error
        taken = [port.any_name for port in compiled.inputs]
        local = threading.local()

        def run(inputs):
            if not hasattr(local, "request"):
                local.request = compiled.create_infer_request()
            found = local.request.infer({name: inputs[name] for name in taken})
            return {name: found[inner] for name, inner in names.items()}

        self.use(Batches(content, run))


def _cut(model, wanted, openvino):
    """The model from the tensors in `CANVAS` and the thresholds to the wanted ones."""
    ports = {name: port for node in model.get_ops() for port in node.outputs() for name in port.get_names()}
    constants = {node.get_friendly_name(): node for node in model.get_ops()}
    ports |= {name: constants[name].output(0) for name in THRESHOLDS if name in constants}
    parameters = []
    for name in (*CANVAS, *THRESHOLDS):
        if name in ports:
            port = ports[name]
            parameter = openvino.opset13.parameter(port.get_partial_shape(), port.get_element_type(), name=name)
            parameter.output(0).get_tensor().set_names({name})
            port.replace(parameter.output(0))
            parameters.append(parameter)
    return openvino.Model([ports[name] for name in wanted], parameters, "network")
