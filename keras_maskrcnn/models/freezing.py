"""Frozen layers of a model by name, so that a configuration can hold them."""

import itertools

from keras_maskrcnn.backend.keras_internals import flatten_layers


def frozen_names(model):
    """Names of the frozen layers: a part such as "backbone" if all of it is frozen, otherwise "backbone/LAYER"."""
    named = named_layers(model)
    parts = {part for part in model.parts() if not named[part].trainable}
    return [
        name
        for name, layer in named.items()
        if name in parts or (not layer.trainable and name.partition("/")[0] not in parts)
    ]


def freeze(model, names):
    """Freezes the named layers with all that they contain; all other layers become trainable.

    Args:
        model: a model with `parts()`.
        names: names as from `frozen_names`.

    Raises:
        ValueError: for a name that is not a layer of the model.
    """
    named = named_layers(model)
    for name in names:
        if name not in named:
            raise ValueError(f"frozen names {name!r}, which is not a layer of this model")
    for part in model.parts().values():
        part.trainable = True  # reaches the layers within
    for name in names:
        named[name].trainable = False


def matching(model, starts):
    """Names of the layers that start with one of the texts, such as "backbone", "backbone/stage1" or "box_head/fc".

    Raises:
        ValueError: no name starts with a text.
    """
    names = list(named_layers(model))
    for start in starts:
        if not any(name.startswith(start) for name in names):
            raise ValueError(f"no layer's name starts with {start!r}; the parts are {', '.join(model.parts())}")
    return [name for name in names if name.startswith(tuple(starts))]


def named_layers(model):
    """Layers of a model with `parts()` by name, each part before the layers within it."""
    named = {}
    for part, layer in model.parts().items():
        named[part] = layer
        for nested in flatten_layers(layer):
            if nested is not layer:
                named[_free(f"{part}/{nested.name}", named)] = nested
    return named


def _free(name, taken):
    """The name, with a number if layers elsewhere in the part have it: "box_head/fc1_2" in the second box stage."""
    numbered = (f"{name}_{i}" for i in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)
