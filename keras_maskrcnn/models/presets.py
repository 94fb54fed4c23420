"""Named configurations, one JSON file each under `keras_maskrcnn/presets`."""

import json
from importlib import resources


def _folder():
    return resources.files("keras_maskrcnn") / "presets"


def names():
    """Names of all presets, sorted."""
    return sorted(f.name.removesuffix(".json") for f in _folder().iterdir() if f.name.endswith(".json"))


def config(name):
    """Constructor arguments of a preset, without `num_classes`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in names():
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(names())}")
    return json.loads((_folder() / f"{name}.json").read_text())["config"]
