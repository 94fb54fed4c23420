"""Named configurations, one JSON file each under `keras_maskrcnn/presets`."""

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
        dict of `description`; `config`, constructor arguments without `num_classes`; `conventions`, a sentence for each
        choice that the weights depend on; and `weights`, where they come from: `source` (see
        `keras_maskrcnn.weights.load`), `file`, `url`, `sha256` (the first digits, where no more are published),
        `classes`, `licence`, `metrics`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in names():
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(names())}")
    return json.loads((_folder() / f"{name}.json").read_text())


def merged(config, overrides):
    """Constructor arguments of a preset with a caller's in their place; dicts of options are merged."""

    def one(key):
        if isinstance(overrides[key], dict) and isinstance(config.get(key), dict):
            return {**config[key], **overrides[key]}
        return overrides[key]

    return {**config, **{key: one(key) for key in overrides}}
