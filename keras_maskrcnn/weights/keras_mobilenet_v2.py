"""Names of `keras.applications.MobileNetV2`, the layers of the Keras model in place of a file.

The map is exact: layouts are equal. `CONVENTIONS` are the options of `backbones.mobilenet_v2.MobileNetV2` that the
weights need. Names are from keras/applications, mobilenet_v2.py.
"""

from keras_maskrcnn.weights import keras_applications, rows

SIGNATURE = ("Conv1/",)
CONVENTIONS = {
    "norm_epsilon": 1e-3,
    "padding": "same",
    "pixel_mean": (127.5, 127.5, 127.5),
    "pixel_std": (127.5, 127.5, 127.5),
}
plain, spare, num_classes = keras_applications.plain, keras_applications.spare, keras_applications.num_classes
conflict = keras_applications.conflict_with(CONVENTIONS)


def name_map(model, names):
    """Rows for all variables of the backbone, a `backbones.mobilenet_v2.MobileNetV2`; `names` are not used."""
    del names
    blocks = {}
    for conv in model.backbone.layers:
        unit, is_conv, _ = conv.name.rpartition("_conv")
        if is_conv:
            theirs, their_norm = _unit_names(unit, blocks)
            yield rows.Row(conv.kernel, f"backbone.{conv.name}.kernel", (f"{theirs}/kernel",), rows.same)
            norm = model.backbone.get_layer(f"{unit}_norm")
            yield from rows.keras_plain_norm(norm, f"backbone.{norm.name}", their_norm)


def _unit_names(unit, blocks):
    """Names of a unit's convolution and norm; `blocks` are the numbers of the blocks so far, by name."""
    block, _, part = unit.rpartition("_")
    if not block:
        return "Conv1", "bn_Conv1"
    if part == "last":
        return "Conv_1", "Conv_1_bn"
    number = blocks.setdefault(block, len(blocks))
    name = f"block_{number}_{part}" if number else f"expanded_conv_{part}"
    return name, f"{name}_BN"
