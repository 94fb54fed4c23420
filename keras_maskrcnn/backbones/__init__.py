"""Backbones: networks from images to a dict of feature maps {"C2": stride 4, …, "C5": stride 32}."""

import functools

import keras

from keras_maskrcnn.backbones.any import from_keras
from keras_maskrcnn.backbones.resnet import ResNet
from keras_maskrcnn.backbones.simple_cnn import SimpleCNN

__all__ = ["NAMES", "ResNet", "SimpleCNN", "from_keras", "get"]

NAMES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "simple_cnn")


def get(backbone, dtype=None):
    """Create a backbone.

    Args:
        backbone: one of `NAMES`; or a dict such as `{"name": "resnet18", "norm": "group", "width": 32}`; or a Keras
            model whose output is a dict {"C2": …} (see `from_keras`), which is returned unchanged.
        dtype: Keras dtype policy of a new backbone.

    Returns:
        A Keras model.

    Raises:
        ValueError: for an unknown name, invalid options, or a model with other outputs.
    """
    if isinstance(backbone, str | dict):
        options = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
        name = options.pop("name", None)
        if name not in NAMES:
            raise ValueError(f"backbone {name!r} is not one of {', '.join(NAMES)}")
        options.setdefault("dtype", dtype)
        make = SimpleCNN if name == "simple_cnn" else functools.partial(ResNet, int(name.removeprefix("resnet")))
        try:
            return make(**options)
        except TypeError as error:
            raise ValueError(f"backbone {name!r}: {error}") from error
    if not isinstance(backbone, keras.Model) or not isinstance(getattr(backbone, "output", None), dict):
        raise ValueError(f"backbone={backbone!r} must be a name or a Keras model with outputs {{'C2': …}}")
    return backbone
