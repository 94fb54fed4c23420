"""What a name map is made of: rows that say which arrays of a file fill which variable of ours, and how.

A map is a generator of `Row`. The three maps share the walk over our layers and the layouts below.
"""

import re
import typing

import numpy as np

# Parts of the model that hold weights, in the order in which pixels pass them.
PARTS = ("backbone", "fpn", "rpn", "box_head", "mask_head")
# Layers with one output, or four, a class: they cannot be taken over where the classes are others.
CLASS_LAYERS = ("box_head.classes", "box_head.deltas", "mask_head.logits")
# Our names of batch normalisation's arrays; group normalisation has the first two.
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


class Row(typing.NamedTuple):
    """One row of a map.

    Attributes:
        variable: Keras variable to fill.
        name: its readable name, the path of attributes from the model, such as "rpn.convs.0.kernel".
        sources: names of the arrays in the file.
        transform: function of those arrays, in that order, to an array of the variable's shape.
    """

    variable: typing.Any
    name: str
    sources: tuple
    transform: typing.Callable

    @property
    def layer(self):
        """Readable name of the layer that owns the variable, such as "rpn.convs.0"."""
        return self.name.rpartition(".")[0]

    @property
    def part(self):
        """The part of the model that it lies in, one of `PARTS`."""
        return self.name.partition(".")[0]


class Unit(typing.NamedTuple):
    """A convolution of a ResNet and the normalisation after it.

    Attributes:
        stage: 0 for the stem, then 1…4.
        block: 1, 2, … within the stage; 0 for the stem.
        part: "1", "2", "3" for the convolutions of a block, "shortcut", or "stem".
        conv: Keras layer.
        norm: Keras layer.
    """

    stage: int
    block: int
    part: str
    conv: typing.Any
    norm: typing.Any


def backbone_units(backbone):
    """All units of one of our ResNets, from pixels to C5."""
    for conv in backbone.layers:
        unit, is_conv, _ = conv.name.rpartition("_conv")
        if is_conv:
            yield Unit(*_place(unit), conv, backbone.get_layer(f"{unit}_norm"))


def _place(unit):
    """(stage, block, part) of "stem" or of a name such as "stage3_block2_shortcut"."""
    match = re.fullmatch(r"stage(\d)_block(\d+)_(\w+)", unit)
    return (int(match[1]), int(match[2]), match[3]) if match else (0, 0, "stem")


def fpn_layers(fpn):
    """Convolutions of a pyramid and their norms, level by level.

    Yields:
        (side, level, attribute, convolution, norm): side is "lateral" or "output", level "C2", …, attribute the
        convolution's readable name, norm None in a pyramid without.
    """
    sides = (
        ("lateral", "fpn.lateral", fpn.lateral, fpn.lateral_norm),
        ("output", "fpn.output_conv", fpn.output_conv, fpn.output_norm),
    )
    for side, attribute, convs, norms in sides:
        for level in sorted(convs):
            yield side, level, f"{attribute}.{level}", convs[level], norms.get(level)


def same(array):
    """The transform that takes an array as it is."""
    return array


# torch's names and layouts --------------------------------------------------------------------------------------------


def torch_layer(layer, name, theirs, kernel, bias=same):
    """Rows of a layer with a kernel, and with a bias where ours has one.

    Args:
        layer: Keras layer.
        name: its readable name.
        theirs: its name in the file.
        kernel: transform of the kernel.
        bias: transform of the bias.
    """
    yield Row(layer.kernel, f"{name}.kernel", (f"{theirs}.weight",), kernel)
    if getattr(layer, "bias", None) is not None:
        yield Row(layer.bias, f"{name}.bias", (f"{theirs}.bias",), bias)


def torch_norm(layer, name, theirs):
    """Rows of a normalisation; none where `layer` is None or has no weights."""
    for kind, their_kind in zip(NORM, ("weight", "bias", "running_mean", "running_var"), strict=True):
        if hasattr(layer, kind):
            yield Row(getattr(layer, kind), f"{name}.{kind}", (f"{theirs}.{their_kind}",), same)


def torch_conv(kernel):
    """`[out, in, y, x]` to `[y, x, in, out]`."""
    return kernel.transpose(2, 3, 1, 0)


def torch_deconvolution(kernel):
    """`[in, out, y, x]` to `[in, y, x, out]`."""
    return kernel.transpose(0, 2, 3, 1)


def torch_dense(kernel):
    """`[out, in]` to `[in, out]`."""
    return kernel.transpose(1, 0)


def torch_flattened(pool):
    """The transform of a dense kernel after flattened maps: `[out, (C, y, x)]` to `[(y, x, C), out]`.

    Args:
        pool: bins a side of the maps.
    """

    def transform(kernel):
        out = kernel.shape[0]
        return kernel.reshape(out, -1, pool, pool).transpose(2, 3, 1, 0).reshape(-1, out)

    return transform


def then(first, second):
    """The transform that applies two, one after the other."""
    return lambda array: second(first(array))


def background_first(array):
    """Classes on the last axis with background at the end, to background at the start."""
    return np.roll(array, 1, axis=-1)


def with_background(outputs):
    """The transform that puts zeros for background before the classes.

    Args:
        outputs: entries a class on the last axis.
    """

    def transform(array):
        return np.concatenate([np.zeros_like(array[..., :outputs]), array], axis=-1)

    return transform
