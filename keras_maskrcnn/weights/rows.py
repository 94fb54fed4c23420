"""Rows of a name map: which arrays of a published file fill which variable, and by which transform.

A name map is a generator of `Row`. Those of backbone and pyramid are in `torchvision`, `detectron2` and `matterport`,
those of a head in its own file (`heads/`). All use the transforms below.
"""

import re
import typing

import numpy as np

# Keras' names of batch normalisation's arrays; group normalisation has the first two.
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
        """Name of the part of the model that owns the variable, such as "rpn"."""
        return self.name.partition(".")[0]


class Unit(typing.NamedTuple):
    """A convolution of a ResNet and the normalisation that follows it.

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
    """All units of a `backbones.resnet.ResNet`, from pixels to C5."""
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
        convolution's readable name, norm a layer or None.
    """
    sides = (
        ("lateral", "fpn.lateral", fpn.lateral, fpn.lateral_norm),
        ("output", "fpn.output_conv", fpn.output_conv, fpn.output_norm),
    )
    for side, attribute, convs, norms in sides:
        for level in sorted(convs):
            yield side, level, f"{attribute}.{level}", convs[level], norms.get(level)


def same(array):
    """The transform that returns an array unchanged."""
    return array


def present(names, *stems):
    """The first of a layer's names (newest first) that occurs in the file; otherwise the newest."""
    return next((stem for stem in stems if f"{stem}.weight" in names), stems[0])


# torch's names and layouts --------------------------------------------------------------------------------------------


def torch_layer(layer, name, theirs, kernel, bias=same):
    """Rows of a layer's kernel, and of its bias if it has one.

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
    """Rows of a normalisation; none if `layer` is None or has no weights."""
    for kind, their_kind in zip(NORM, ("weight", "bias", "running_mean", "running_var"), strict=True):
        if hasattr(layer, kind):
            yield Row(getattr(layer, kind), f"{name}.{kind}", (f"{theirs}.{their_kind}",), same)


def torch_unit_names(unit, stage):
    """Names of the convolution and the norm of a ResNet's unit, such as ("layer2.0.conv1", "layer2.0.bn1").

    Args:
        unit: `Unit`.
        stage: name of its stage, such as "layer2".
    """
    if unit.stage == 0:
        return "conv1", "bn1"
    block = f"{stage}.{unit.block - 1}"
    if unit.part == "shortcut":
        return f"{block}.downsample.0", f"{block}.downsample.1"
    return f"{block}.conv{unit.part}", f"{block}.bn{unit.part}"


def torch_conv(kernel):
    """`[out, in, y, x]` to `[y, x, in, out]`."""
    return kernel.transpose(2, 3, 1, 0)


def torch_depthwise(kernel):
    """`[channels, 1, y, x]` to `[y, x, channels, 1]`."""
    return kernel.transpose(2, 3, 0, 1)


def torch_deconvolution(kernel):
    """`[in, out, y, x]` to `[in, y, x, out]`."""
    return kernel.transpose(0, 2, 3, 1)


def torch_dense(kernel):
    """`[out, in]` to `[in, out]`."""
    return kernel.transpose(1, 0)


def torch_flattened(pool):
    """The transform of a dense kernel after flattened maps: `[out, (C, y, x)]` to `[(y, x, C), out]`.

    Args:
        pool: bins per side of the maps.
    """

    def transform(kernel):
        out = kernel.shape[0]
        return kernel.reshape(out, -1, pool, pool).transpose(2, 3, 1, 0).reshape(-1, out)

    return transform


def then(first, second):
    """The transform that applies `first`, then `second`."""
    return lambda array: second(first(array))


def background_first(array):
    """Moves background from the end of the last axis to its start."""
    return np.roll(array, 1, axis=-1)


def with_background(outputs):
    """The transform that inserts zeros for background before the classes.

    Args:
        outputs: entries per class on the last axis.
    """

    def transform(array):
        return np.concatenate([np.zeros_like(array[..., :outputs]), array], axis=-1)

    return transform


def anchors_by_ratio(sizes, ratios, outputs):
    """The transform from detectron2's order of a location's anchors, by size, to this library's, by ratio.

    Args:
        sizes: number of sizes per level.
        ratios: number of ratios.
        outputs: entries per anchor on the last axis.
    """

    def transform(array):
        grouped = array.reshape(*array.shape[:-1], sizes, ratios, outputs)
        return np.swapaxes(grouped, -3, -2).reshape(array.shape)

    return transform


def detectron2_convs(head, name, theirs):
    """Rows of a head's convolutions, numbered from 1 in the file, and of their norms."""
    for i, conv in enumerate(head.convs):
        yield from torch_layer(conv, f"{name}.convs.{i}", f"{theirs}{i + 1}", torch_conv)
    for i, norm in enumerate(head.norms):
        yield from torch_norm(norm, f"{name}.norms.{i}", f"{theirs}{i + 1}.norm")


# Keras 2 and matterport's layouts -----------------------------------------------------------------------------------

EPSILON = 1e-3  # matterport's batch norms
RPN_DELTA_SCALE = (0.1, 0.1, 0.2, 0.2)  # RPN_BBOX_STD_DEV


def shifted_mean(mean, bias):
    """Moving mean that includes the bias of the convolution before it."""
    return mean - bias


def folded_kernel(kernel, gamma, variance):
    """Kernel, outputs on the last axis, that includes the scale of the batch norm after it."""
    return kernel * (gamma / np.sqrt(variance + EPSILON))


def folded_bias(bias, gamma, beta, mean, variance):
    """Bias that includes the offset of the batch norm after it."""
    return (bias - mean) * (gamma / np.sqrt(variance + EPSILON)) + beta


def region_kernel(kernel, gamma, variance):
    """Kernel of a convolution over a region `[y, x, C, out]` as dense `[(y, x, C), out]`, with the norm folded in."""
    return folded_kernel(kernel, gamma, variance).reshape(-1, kernel.shape[-1])


def object_logit(pairs):
    """Pairs (background, object) per anchor on the last axis to their differences."""
    return pairs[..., 1::2] - pairs[..., 0::2]


def reordered_deltas(deltas):
    """(dy, dx, dh, dw) groups on the last axis to (dx, dy, dw, dh)."""
    return deltas.reshape(*deltas.shape[:-1], -1, 4)[..., [1, 0, 3, 2]].reshape(deltas.shape)


def anchor_deltas(deltas):
    """`reordered_deltas` for the RPN, whose outputs are in units of `RPN_DELTA_SCALE`."""
    return reordered_deltas(deltas) * np.resize(np.float32(RPN_DELTA_SCALE), deltas.shape[-1])


def keras_deconvolution(kernel):
    """Keras' `[y, x, out, in]` to `[in, y, x, out]`."""
    return kernel.transpose(3, 0, 1, 2)


def keras_layer(layer, name, theirs, kernel=same, bias=same):
    """Rows of a layer's kernel, and of its bias if it has one."""
    yield Row(layer.kernel, f"{name}.kernel", (f"{theirs}/kernel",), kernel)
    if layer.bias is not None:
        yield Row(layer.bias, f"{name}.bias", (f"{theirs}/bias",), bias)


def keras_arrays(model):
    """Dict from "layer/weight" to the arrays of a Keras model."""
    return {f"{layer.name}/{w.name}": w.numpy() for layer in model.layers for w in layer.weights}


def other_options(backbone, conventions):
    """Why weights that need options of a backbone do not fit this one; None if they do."""
    for option, needed in conventions.items():
        given = getattr(backbone, option)
        if given != needed:
            return f"these weights need {option}={needed}, the backbone has {given}"
    return None


def keras_plain_norm(layer, name, theirs):
    """Rows of a normalisation after a convolution without bias."""
    for kind in NORM:
        if hasattr(layer, kind):
            yield Row(getattr(layer, kind), f"{name}.{kind}", (f"{theirs}/{kind}",), same)


def keras_norm(layer, name, theirs, bias):
    """Rows of a normalisation; `bias` is the name of the bias of the convolution before it, which has none here."""
    for kind in NORM:
        if hasattr(layer, kind):
            sources, transform = (f"{theirs}/{kind}",), same
            if kind == "moving_mean":
                sources, transform = (*sources, bias), shifted_mean
            yield Row(getattr(layer, kind), f"{name}.{kind}", sources, transform)


def folded(layer, name, conv, norm, kernel):
    """Rows of a layer into which the batch norm after it is folded."""
    gamma, beta, mean, variance = (f"{norm}/{kind}" for kind in NORM)
    yield Row(layer.kernel, f"{name}.kernel", (f"{conv}/kernel", gamma, variance), kernel)
    if layer.bias is not None:
        sources = (f"{conv}/bias", gamma, beta, mean, variance)
        yield Row(layer.bias, f"{name}.bias", sources, folded_bias)
