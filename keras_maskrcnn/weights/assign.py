"""Assigns the arrays of a file to a model by a name map; all checks run before the first assignment."""

import importlib
import typing

import numpy as np

from keras_maskrcnn.backbones.darknet53 import DarkNet53
from keras_maskrcnn.backbones.efficientnet_lite import EfficientNetLite
from keras_maskrcnn.backbones.mobilenet_v2 import MobileNetV2
from keras_maskrcnn.backbones.resnet import ResNet
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.heads import mask
from keras_maskrcnn.weights import channels

SOURCES = ("torchvision", "detectron2", "matterport", "yolact")
# Sources of classifiers, which `imagenet` fills backbones from.
CLASSIFIERS = ("efficientnet_lite", "keras_resnet", "keras_mobilenet_v2")
# Classes of backbones of a source, ResNet where there is none.
BACKBONES = {
    "torchvision": (ResNet, MobileNetV2),
    "efficientnet_lite": (EfficientNetLite,),
    "keras_mobilenet_v2": (MobileNetV2,),
    "yolact": (ResNet, DarkNet53),
}
# A part that the models of a source have; torchvision's may be classifiers.
PARTS = {"detectron2": "rpn", "matterport": "rpn", "yolact": "prototype_head"}
PUBLISHED_MASK_LOSS = "sigmoid"  # of all `SOURCES`
# Maximum number of names that an error lists; further ones are counted.
LISTED = 6


class Report(typing.NamedTuple):
    """Result of loading weights.

    Attributes:
        loaded: number of variables that were filled.
        reinitialised: names of the model's layers or parts that take nothing from the file, such as "box_head.classes"
            or "mask_head"; in a new model they have their initial values.
        unused: names of the arrays in the file that the model does not use.
    """

    loaded: int
    reinitialised: list
    unused: list


class Alone:
    """A backbone in the place of the model that `fill` takes.

    Args:
        backbone: Keras model.
    """

    neck = num_classes = None

    def __init__(self, backbone):
        self.backbone = backbone

    def parts(self):
        """The backbone by its name among the parts of a model."""
        return {"backbone": self.backbone}

    def all_heads(self):
        """No heads."""
        return {}


def fill(model, arrays, source, path):
    """Fill a model from arrays under published names; on an error it is unchanged.

    Args:
        model: model with a backbone of the source's kind, or `Alone`.
        arrays: dict from the source's names to arrays.
        source: one of `SOURCES` or `CLASSIFIERS`.
        path: file name for errors and printed lines.

    Returns:
        `Report`.

    Raises:
        DataError: in one line, see `keras_maskrcnn.weights.load`.
        ValueError: for an unknown source.
    """
    names = _names(source)
    kinds = BACKBONES.get(source, (ResNet,))
    if not isinstance(model.backbone, kinds):
        known = " or a ".join(kind.__name__ for kind in kinds)
        reason = f"{source}'s weights are for a {known}; the model's backbone is {model.backbone.name}"
        raise DataError(path, reason)
    if PARTS.get(source, "backbone") not in model.parts():
        raise DataError(path, f"{source}'s weights are for models with a part {PARTS[source]}, which this one lacks")
    arrays = _plainly_named(path, names, arrays)
    if reason := names.conflict(model, arrays):
        raise DataError(path, reason)
    table = list(names.name_map(model, arrays))
    unused = _check_names(path, source, arrays, table, model)
    _check_complete(path, source, model, table)
    absent = _absent_parts(model, table)
    theirs = names.num_classes(arrays)
    reset = _class_layers(model, table) if theirs not in (None, model.num_classes) else []
    table = [row for row in table if row.layer not in reset]
    first = channels.first_kernel(model.backbone)
    values = [_value(path, arrays, row, row.variable is first) for row in table]
    for row, value in zip(table, values, strict=True):
        row.variable.assign(value)
    for name in reset:
        _reset(model, name)
    announce(model, path, theirs, reset, absent)
    if "mask_head" not in absent:
        announce_mask_loss(model, path, PUBLISHED_MASK_LOSS)
    channels.announce(path, 3, model.backbone.input_channels)
    return Report(len(table), reset + absent, unused)


def announce(model, path, theirs, reset, absent):
    """Prints what a file did not fill.

    Args:
        model: the model that was filled.
        path: the file.
        theirs: number of classes in the file.
        reset: names of the layers that were initialised because the model has another number of classes.
        absent: names of the model's parts that the file does not hold.
    """
    if reset:
        counts = f"num_classes is {theirs} in the file, {model.num_classes} in the model"
        print(f"{path}: {counts}: reinitialised {', '.join(reset)}")
    if absent:
        print(f"{path}: has no {', '.join(absent)}; unchanged in the model")


def announce_mask_loss(model, path, theirs):
    """Prints that the masks of a file were trained by another loss than the model's, if they were.

    The logits of classes that a sigmoid leaves alone are not comparable, as a softmax compares them.

    Args:
        model: the model that was filled, with or without a mask head.
        path: the file.
        theirs: `heads.mask.MaskStage.loss` of the training that the weights are from.
    """
    head = model.parts().get("mask_head")
    if isinstance(head, mask.MaskHead) and head.stage.loss != theirs:
        ours = head.stage.loss
        print(f"{path}: its masks were trained with loss={theirs!r}, the model's have {ours!r}: train them before use")


def per_class_layers(model):
    """Layers whose width depends on the number of classes, by names such as "box_head.classes"."""
    return {
        f"{part}.{name}": layer
        for part, head in model.all_heads().items()
        for name, layer in head.per_class_layers().items()
    }


def _names(source):
    if source not in (*SOURCES, *CLASSIFIERS):
        raise ValueError(f"source={source!r} is not one of {', '.join(SOURCES)}")
    return importlib.import_module(f"keras_maskrcnn.weights.{source}")


def _plainly_named(path, names, arrays):
    """The arrays under plain names, without `num_batches_tracked` of torch's norms."""
    found = {}
    for name, array in arrays.items():
        plain = names.plain(name)
        if plain in found:
            raise DataError(path, f"holds {plain} twice")
        if not plain.endswith("num_batches_tracked"):
            found[plain] = array
    return found


def _check_names(path, source, arrays, table, model):
    """Checks that the file holds all sources of the map and otherwise only spare arrays; returns the names of those."""
    sources = list(dict.fromkeys(name for row in table for name in row.sources))
    missing = [name for name in sources if name not in arrays]
    unused = [name for name in arrays if name not in set(sources)]
    absent = () if model.parts().keys() & {"mask_head"} else mask.PUBLISHED.get(source, ())[:1]
    unexpected = [name for name in unused if not (_names(source).spare(name) or name.startswith(absent))]
    if missing or unexpected:
        held = f"holds {len(sources) - len(missing)} of the {len(sources)} arrays that this model takes from {source}"
        raise DataError(path, held + (_other_source(source, arrays) or _difference(missing, unexpected)))
    return unused


def _difference(missing, unexpected):
    """The end of an error: the names on one side only."""
    lists = {"missing": missing, "unexpected": unexpected}
    return "".join(f"; {kind}: {_some(names)}" for kind, names in lists.items() if names)


def _other_source(source, arrays):
    """The end of an error if the file has names of another source; otherwise ""."""
    for other in (*SOURCES, *CLASSIFIERS):
        if other != source and any(name.startswith(_names(other).SIGNATURE) for name in arrays):
            return f"; its names match source={other!r}"
    return ""


def _check_complete(path, source, model, table):
    """Checks that parts in the map are filled completely; matterport's heads, for example, have no norms to load."""
    mapped = {id(row.variable) for row in table}
    for part in dict.fromkeys(row.part for row in table):
        left = [variable.path for variable in model.parts()[part].weights if id(variable) not in mapped]
        if left:
            raise DataError(path, f"{source} has no arrays for {_some(left)} of this model's {part}")


def _absent_parts(model, table):
    """Names of the model's parts that are not in the map."""
    mapped = {row.part for row in table}
    return [part for part in model.parts() if part not in mapped]


def _class_layers(model, table):
    """Names of the map's layers whose outputs depend on the number of classes."""
    mapped = {row.layer for row in table}
    return [name for name in per_class_layers(model) if name in mapped]


def _value(path, arrays, row, is_first):
    """Value of a row's variable, float32 of the variable's shape; the first kernel is adapted to its channels."""
    given = [_numbers(path, name, arrays[name]) for name in row.sources]
    try:
        with np.errstate(all="ignore"):
            value = row.transform(*given)
    except (ValueError, IndexError) as error:  # another rank, or a shape that cannot be split
        raise DataError(path, _misfit(row, given)) from error
    value = channels.fitting(value, row.variable.shape) if is_first else value
    if value.shape != tuple(row.variable.shape):
        raise DataError(path, _misfit(row, given))
    if not np.isfinite(value).all():
        raise DataError(path, f"{', '.join(row.sources)}: the converted values are not finite")
    if row.name.endswith("moving_variance") and (value < 0).any():
        raise DataError(path, f"{', '.join(row.sources)} holds negative variances")
    return value


def _numbers(path, name, array):
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise DataError(path, f"{name} is {array.dtype}, not numbers")
    with np.errstate(over="ignore"):  # overflow gives infinity, rejected below
        array = array.astype("float32", copy=False)
    if not np.isfinite(array).all():
        raise DataError(path, f"{name} holds numbers that are not finite")
    return array


def _misfit(row, given):
    theirs = ", ".join(f"{name} {list(array.shape)}" for name, array in zip(row.sources, given, strict=True))
    return f"{theirs} does not fit {row.name} {list(row.variable.shape)}: weights for another backbone or other widths"


def _reset(model, name):
    """Sets a layer that depends on the number of classes to the values of its initializers."""
    layer = per_class_layers(model)[name]
    layer.kernel.assign(layer.kernel_initializer(layer.kernel.shape, dtype=layer.kernel.dtype))
    layer.bias.assign(layer.bias_initializer(layer.bias.shape, dtype=layer.bias.dtype))


def _some(names):
    """Up to `LISTED` names, and the number of the others."""
    listed = ", ".join(names[:LISTED])
    return f"{listed} and {len(names) - LISTED} more" if len(names) > LISTED else listed
