"""Presets: named configurations, one JSON file each in `keras_maskrcnn/presets`."""

import json
from importlib import resources


def _folder():
    return resources.files("keras_maskrcnn") / "presets"


def names():
    """Names of all presets, sorted."""
    return sorted(f.name.removesuffix(".json") for f in _folder().iterdir() if f.name.endswith(".json"))


def read(name):
    """The content of a preset.

    Returns:
        dict with `description`; `config`, constructor arguments without `num_classes`; `conventions`, a description of
        each convention that the weights depend on; and `weights`: `source` (see `keras_maskrcnn.weights.load`), `file`,
        `url`, `sha256` (the first digits if no more are published), `classes`, `licence`, `metrics`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in names():
        raise ValueError(f"there is no preset {name!r}; the presets are {', '.join(names())}")
    return json.loads((_folder() / f"{name}.json").read_text())


def merged(config, overrides):
    """Constructor arguments of a preset, updated with `overrides`; dicts of options are merged."""

    def one(key):
        if isinstance(overrides[key], dict) and isinstance(config.get(key), dict):
            return {**config[key], **overrides[key]}
        return overrides[key]

    return {**config, **{key: one(key) for key in overrides}}


def make(model_class, name, num_classes, weights, overrides):
    """The model of a preset; arguments as for `InstanceModel.from_preset`."""
    preset = read(name)
    classes = preset["weights"]["classes"] if num_classes is None else num_classes
    model = model_class(classes, **merged(preset["config"], overrides))
    if weights is not None and str(weights).endswith(".weights.h5"):
        from keras_maskrcnn.weights import keras_file

        keras_file.check(weights)
        model.load_weights(weights)
    elif weights is not None:
        from keras_maskrcnn.weights import load

        load(model, weights, preset["weights"]["source"])
    return model
