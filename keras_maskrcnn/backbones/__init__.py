"""Backbones: networks from images to a dict of feature maps {"C2": stride 4, …, "C5": stride 32}."""

import functools
import inspect

import keras

from keras_maskrcnn.backbones.any import from_keras
from keras_maskrcnn.backbones.darknet53 import DarkNet53
from keras_maskrcnn.backbones.efficientnet_lite import VARIANTS, EfficientNetLite
from keras_maskrcnn.backbones.mobilenet_v2 import MobileNetV2
from keras_maskrcnn.backbones.resnet import BLOCKS, RESNEXTS, ResNet
from keras_maskrcnn.backbones.simple_cnn import SimpleCNN

__all__ = [
    "NAMES",
    "DarkNet53",
    "EfficientNetLite",
    "MobileNetV2",
    "ResNet",
    "SimpleCNN",
    "from_keras",
    "get",
    "strides",
    "takes",
]

_MAKERS = {
    **{f"resnet{depth}": functools.partial(ResNet, depth) for depth in BLOCKS},
    **{
        f"resnext{depth}_{groups}x{width}d": functools.partial(ResNet, depth, groups=groups, width_per_group=width)
        for depth, variants in RESNEXTS.items()
        for groups, width in variants
    },
    "mobilenet_v2": MobileNetV2,
    **{f"efficientnet_lite{variant}": functools.partial(EfficientNetLite, variant) for variant in VARIANTS},
    "darknet53": DarkNet53,
    "simple_cnn": SimpleCNN,
}
NAMES = tuple(_MAKERS)


def get(backbone, dtype=None, weights=None, input_channels=3):
    """Create a backbone.

    Args:
        backbone: one of `NAMES`; or a dict such as `{"name": "resnet18", "norm": "group", "width": 32}`, which may also
            hold `weights`; or a Keras model whose output is a dict {"C2": …} (see `from_keras`), which is returned
            unchanged.
        dtype: Keras dtype policy of a new backbone.
        weights: initial weights of a new backbone: "imagenet", the path of a classifier's file, or None for random
            ones, see `weights.imagenet`. They are not part of the backbone's configuration.
        input_channels: channels of the images. For other than 3, the first kernel of the weights is adapted, see
            `weights.channels`.

    Returns:
        A Keras model.

    Raises:
        ValueError: for an unknown name, invalid options, a model with other inputs or outputs, or weights that are
            missing or do not fit.
    """
    if isinstance(backbone, str | dict):
        options = {"weights": weights, **({"name": backbone} if isinstance(backbone, str) else backbone)}
        defaults = {"dtype": dtype, "input_channels": input_channels}
        return _make(options.pop("name", None), options.pop("weights"), {**defaults, **options})
    if not isinstance(backbone, keras.Model) or not isinstance(getattr(backbone, "output", None), dict):
        raise ValueError(f"backbone={backbone!r} must be a name or a Keras model with outputs {{'C2': …}}")
    if weights is not None:
        raise ValueError(f"weights={str(weights)!r} need the name of a backbone, and {backbone.name} is a model")
    if backbone.inputs[0].shape[-1] != input_channels:
        taken = backbone.inputs[0].shape[-1]
        raise ValueError(f"{backbone.name} takes images of {taken} channels, the model has channels={input_channels}")
    return backbone


def strides(backbone):
    """Strides of a backbone's levels, finest first: {"C2": 4, …, "C5": 32}; at most 16 or 8 in a dilated one."""
    most = min(getattr(backbone, "output_stride", 32), 16 if getattr(backbone, "dilated", False) else 32)
    return {level: min(2 ** int(level[1:]), most) for level in sorted(backbone.output)}


def takes(name, option):
    """Whether a name in `NAMES` is that of a backbone with an option, such as "dilated"."""
    return name in NAMES and option in inspect.signature(_MAKERS[name]).parameters


def _make(name, weights, options):
    if name not in NAMES:
        raise ValueError(f"backbone {name!r} is not one of {', '.join(NAMES)}")
    if weights is not None:
        from keras_maskrcnn.weights import imagenet

        options = {**imagenet.conventions(name, weights), **options}
    try:
        made = _MAKERS[name](**options)
    except TypeError as error:
        raise ValueError(f"backbone {name!r}: {error}") from error
    if weights is not None:
        imagenet.fill(made, name, weights)
    return made
