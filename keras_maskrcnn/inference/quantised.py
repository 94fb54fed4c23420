"""INT8: post-training quantisation of an OpenVINO model by NNCF. Coordinates, NMS and preprocessing stay in float32."""

from keras_maskrcnn.inference.exported import needs

# Layers that are quantised, if they have weights.
LAYERS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "MatMul")


def quantised(model, images, path):
    """A model with weights and activations of its convolutions and dense layers in 8 bits.

    Ranges of activations are those in the calibration images. Jacob et al., Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference (2018); the choice of ranges is NNCF's.

    Args:
        model: `openvino.Model` with the one input `images`.
        images: list of arrays `[H, W, C]` of the model's type.
        path: of the file that is written, for messages.

    Returns:
        `openvino.Model`.

    Raises:
        DataError: NNCF is not installed.
        ValueError: there are no images.
    """
    if not images:
        raise ValueError("no calibration images")
    with needs(path, "int8"):
        import nncf
    others = [node.get_friendly_name() for node in model.get_ops() if not _has_weights(node)]
    return nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: {"images": image[None]}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )


def _has_weights(node):
    """Whether a node is a layer of `LAYERS` with a constant among its inputs, maybe reshaped or converted."""
    return node.get_type_name() in LAYERS and any(_is_constant(value.get_node()) for value in node.input_values())


def _is_constant(node):
    while node.get_type_name() in ("Convert", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant"
