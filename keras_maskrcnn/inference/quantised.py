"""INT8: post-training quantisation of an OpenVINO model by NNCF. Preprocessing, boxes and NMS stay in float32."""

import logging

from keras_maskrcnn.inference.exported import required

# Layers that multiply in 8 bits, if they have weights, and operations on their results that 8 bits pass unchanged.
LAYERS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "MatMul")
UNCHANGED = (
    "Broadcast",
    "Clamp",
    "MaxPool",
    "Pad",
    "Relu",
    "Reshape",
    "Squeeze",
    "StridedSlice",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
SUMS = ("Add", "Concat")
IGNORED = ["nncf", "quantization", "ignored_scope", "names"]  # where NNCF notes thousands of names in the file


def quantised(model, images, path, batch=None):
    """A model whose convolutions and dense layers multiply in 8 bits.

    The ranges of their inputs are those in the calibration images: one range for a tensor, asymmetric; those of the
    weights are symmetric, one for an output channel. Jacob et al., Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference (2018); the choice of ranges and the correction of biases are NNCF's.

    Predictions of dense layers stay in float32, see `_last_dense`.

    Args:
        model: `openvino.Model` with the one input `images`, whose nodes have unique names.
        images: sequence of one or more arrays `[H, W, C]` of the model's type; each is read when it is needed.
        path: of the file that is written, for messages.
        batch: number of images that the model takes; None for any.

    Returns:
        `openvino.Model`.

    Raises:
        DataError: NNCF is not installed.
        ValueError: OpenVINO does not load the result.
    """
    with required(path, "int8"):
        import nncf
        import numpy as np
        import openvino
    # Otherwise a line for each operation that stays in float32. `nncf.set_log_level` would change all handlers.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    features = _features(model)
    others = [node.get_friendly_name() for node in model.get_ops() if node.get_friendly_name() not in features]
    changed = nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: {"images": np.repeat(image[None], batch or 1, axis=0)}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )
    changed.set_rt_info("all operations outside convolutions and dense layers", IGNORED)
    try:
        openvino.Core().compile_model(changed, "CPU")
    except RuntimeError as error:
        raise ValueError(f"{path}: OpenVINO does not load this model in INT8; export it without") from error
    return changed


def _features(model):
    """Names of layers with weights, and of the operations on their results up to where coordinates begin."""
    found = set()
    for node in model.get_ordered_ops():
        kind, sources = node.get_type_name(), [value.get_node() for value in node.input_values()]
        known = [source.get_friendly_name() in found for source in sources]
        constant = [_is_constant(source) for source in sources]
        if (
            (kind in LAYERS and any(constant))
            or (kind in UNCHANGED and known[0])
            or (kind in SUMS and any(known) and all(map(max, known, constant)))
        ):
            found.add(node.get_friendly_name())
    return found - _last_dense(model, found)


def _last_dense(model, features):
    """Names of dense layers that no layer follows: classes and boxes.

    They are small, and OpenVINO 2026.4 does not load some files in which a Reshape follows such a layer in 8 bits.
    """
    before, last = set(), set()  # names of features with a layer after them
    for node in reversed(model.get_ordered_ops()):
        name = node.get_friendly_name()
        users = [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]
        if any(user.get_type_name() in LAYERS or user.get_friendly_name() in before for user in users):
            before |= {name} & features
        elif node.get_type_name() == "MatMul":
            last |= {name} & features
    return last


def _is_constant(node):
    """Whether a node is a constant, maybe reshaped or converted."""
    while node.get_type_name() in ("Convert", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant"
