"""Names of `keras.applications.ResNet50` and `ResNet101`, the layers of the Keras model in place of a file.

The network is the ResNet of 2015 with convolutions that have a bias. For frozen batch statistics the map is exact, for
trained ones the bias has no effect:

- biases are subtracted from the moving means of the norms after them: norm(x + b) with mean m equals norm(x) with
  mean m - b;
- the stem's input channels are reversed, because Keras' network takes B, G, R and this library's R, G, B.

`CONVENTIONS` are the options of `backbones.resnet.ResNet` that the weights need. Names are from keras/applications,
resnet.py.
"""

from keras_maskrcnn.weights import keras_applications, rows

SIGNATURE = ("conv1_conv/",)
CONVENTIONS = {
    "stride_in_1x1": True,
    "norm_epsilon": 1.001e-5,
    "stem_pool": "symmetric",
    "pixel_mean": (123.68, 116.779, 103.939),
    "pixel_std": (1.0, 1.0, 1.0),
}
plain, spare, num_classes = keras_applications.plain, keras_applications.spare, keras_applications.num_classes
conflict = keras_applications.conflict_with(CONVENTIONS)


def name_map(model, names):
    """Rows for all variables of the backbone, a `backbones.resnet.ResNet`; `names` are not used."""
    del names
    for unit in rows.backbone_units(model.backbone):
        theirs = _unit_name(unit)
        conv, norm = theirs.format("conv"), theirs.format("bn")
        kernel = rows.same if unit.stage else reversed_inputs
        yield rows.Row(unit.conv.kernel, f"backbone.{unit.conv.name}.kernel", (f"{conv}/kernel",), kernel)
        yield from rows.keras_norm(unit.norm, f"backbone.{unit.norm.name}", norm, f"{conv}/bias")


def _unit_name(unit):
    """Template for the names of a unit's convolution and norm, such as "conv2_block1_3_{}"."""
    if unit.stage == 0:
        return "conv1_{}"
    part = "0" if unit.part == "shortcut" else unit.part
    return f"conv{unit.stage + 1}_block{unit.block}_{part}_{{}}"


def reversed_inputs(kernel):
    """`[y, x, (B, G, R), out]` to `[y, x, (R, G, B), out]`."""
    return kernel[:, :, ::-1]
