"""Presets: named configurations with the conventions that weights depend on, and folders with a model's weights.

Inside the package, `presets/NAME.json` is a configuration whose weights other projects published, and `presets/NAME/`
a model that ships with it. `save_preset` writes folders of the second kind, see `weights.preset_folder`.
"""

import copy
import json
import os
import pathlib
from importlib import resources
from typing import Self

import keras
import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_type import ImageType
from keras_maskrcnn.heads.outputs import of_objects

# Class of the configurations that do not state one.
CLASS = "keras_maskrcnn>MaskRCNN"


class Presets:
    """Mixin for models: `save_preset` and `from_preset`."""

    def save_preset(
        self, folder, *, dtype="float32", format="h5", description=None, licence=None, source=None, metrics=None
    ):
        """Write a folder from which `from_preset` makes this model again: configuration, weights and a description.

        The optimizer is left out; `save` keeps it. Before the folder appears, or replaces an earlier preset, the model
        is made from the new files and its weights are compared with those of this model.

        Args:
            folder: new or empty folder, or one that holds a preset, whose other files (such as a README.md) are kept.
            dtype: "float32", or "float16" for files of half the size, which are loaded as float32.
            format: "h5" (`model.weights.h5`, as Keras and KerasHub name it) or "safetensors" (`model.safetensors`).
            description: one sentence: what the model finds.
            licence: licence of the weights, such as "CC0-1.0".
            source: what the model was trained on, and how.
            metrics: dict of figures and of what they were measured on, such as
                {"segm_AP": 0.61, "of": "50 images of the val split"}.

        Raises:
            ValueError: in one line, for a folder that holds something else, weights that are not finite, another dtype
                or format, metrics that are not JSON (`evaluation.for_json` converts scores), or a class or head that is
                not registered with Keras.
        """
        from keras_maskrcnn.weights import preset_save

        card = {"description": description, "licence": licence, "source": source, "metrics": metrics}
        card["conventions"] = _conventions(self)

        def check(written):
            tolerance = 2**-10 if dtype == "float16" else 0
            _compare(self, type(self).from_preset(written), tolerance)

        preset_save.save(self, folder, card, dtype, format, check)

    @classmethod
    def from_preset(
        cls, name: str, num_classes: int | None = None, weights: str | os.PathLike | bool | None = None, **overrides
    ) -> Self:
        """Make a model from a preset.

        Args:
            name: the name of a preset (see `models.presets.names`), a folder that `save_preset` wrote, or a repository
                with such files on the Hugging Face hub: "hf://user/name" or "hf://user/name@revision". A name comes
                before a folder: write "./name" for the folder.
            num_classes: classes without background; None takes those of the preset's weights. With another number, the
                layers that depend on it are initialised and printed, and the model has no class names unless
                `class_names` are given.
            weights: path of a file to load: `.weights.h5` of this library; for a published configuration also what its
                source published, see `keras_maskrcnn.weights.load`. None takes the weights that the preset holds, or
                random ones if it holds none; False takes random ones. The sha256 of a folder's weights is checked.
            **overrides: constructor arguments that replace the preset's. With other `channels` the first convolution of
                the weights is adapted, see `weights.channels`; with other `channels` or `image_dtype`, so are
                `pixel_mean` and `pixel_std`. Of a group of options given as a dict, only
                the named ones are replaced (of the backbone of a published configuration too:
                `backbone={"name": "resnet101"}` keeps its norm).

        Raises:
            ValueError: in one line, for an unknown name, a preset of another class, a missing or damaged file, options
                that do not fit the weights; and what `weights.load` raises.
        """
        return make(cls, name, num_classes, weights, overrides)


def names():
    """Names of all presets, sorted."""
    return sorted({*published(), *shipped()})


def published():
    """Names of the configurations whose weights other projects published, sorted."""
    return sorted(f.name.removesuffix(".json") for f in _folder().iterdir() if f.name.endswith(".json"))


def shipped():
    """Names of the models that ship with this package, sorted."""
    return sorted(f.name for f in _folder().iterdir() if (f / "config.json").is_file())


def holds_weights(name):
    """Whether a name, path or address is that of a preset with weights, so that `from_preset` needs no others."""
    from keras_maskrcnn.weights import hub, preset_folder

    if name in published():  # before a folder of that name, as in `read`
        return False
    return str(name).startswith(hub.SCHEME) or name in shipped() or preset_folder.is_preset(name)


def read(name):
    """The content of a preset.

    Args:
        name: as for `from_preset`.

    Returns:
        dict with `description`; `config`, constructor arguments (without `num_classes` if the preset holds no weights);
        `conventions`, a description of each convention that the weights depend on; and `weights`: `source` (see
        `keras_maskrcnn.weights.load`; in a folder, what the model was trained on), `file`, `url`, `sha256` (the first
        digits if no more are published), `classes` (None if they are weights of the backbone only), `schedule` (if
        known), `licence`, `metrics`. For folders see also `weights.preset_folder.read`.

    Raises:
        ValueError: for an unknown name, or a damaged folder.
    """
    from keras_maskrcnn.weights import hub, preset_folder

    if isinstance(name, str) and name in published():
        return json.loads((_folder() / f"{name}.json").read_text(encoding="utf-8"))
    if isinstance(name, str) and name in shipped():
        return preset_folder.read(str(_folder() / name))
    if isinstance(name, str) and name.startswith(hub.SCHEME):
        return preset_folder.read(hub.folder(name))
    if pathlib.Path(name).is_dir():
        return preset_folder.read(name)
    if pathlib.Path(name).exists():
        raise DataError(name, "is a file, not a preset; keras.saving.load_model loads .keras files")
    raise ValueError(f"there is no preset {str(name)!r}; the presets are {', '.join(names())}; no such folder either")


def overridden(config, overrides):
    """Constructor arguments of a preset, updated with `overrides`; dicts of options are merged.

    With other `channels` or `image_dtype`, the statistics of the images and the backbone's input are changed too.
    """
    config = _for_images(config, overrides)

    def one(key):
        both = isinstance(overrides[key], dict) and isinstance(config.get(key), dict)
        if both and "class_name" not in config[key]:  # serialised objects are replaced
            return {**config[key], **overrides[key]}
        return overrides[key]

    return {**config, **{key: one(key) for key in overrides}}


def make(model_class, name, num_classes, weights, overrides):
    """The model of a preset; arguments as for `from_preset`."""
    preset = read(name)
    model_class = _class(model_class, name, preset)
    if "path" in preset["weights"]:
        return _from_folder(model_class, preset, num_classes, weights, overrides)
    classes = preset["weights"]["classes"] if num_classes is None else num_classes
    if classes is None:
        raise ValueError(f"{name} needs num_classes: there are published weights of its backbone only")
    model = model_class(classes, **overridden(preset["config"], overrides))
    if weights:
        _load(model, weights, preset["weights"]["source"])
    return model


def _class(model_class, name, preset):
    """The class to make: the preset's, or the class that was called if that is derived from it.

    It is looked up among the classes that are registered with Keras; nothing is imported by name.
    """
    registered = preset.get("class", CLASS)
    stored = keras.saving.get_registered_object(registered)
    if not isinstance(stored, type) or not issubclass(stored, Presets):
        hint = "import the module that defines and registers it"
        raise DataError(name, f"holds a {registered[:80]}, which is no model that is registered with Keras: {hint}")
    if issubclass(model_class, stored):
        return model_class
    if not issubclass(stored, model_class):
        raise DataError(name, f"holds a {stored.__name__}, so load it with {stored.__name__}.from_preset")
    return stored


def _from_folder(model_class, preset, num_classes, weights, overrides):
    """The model of a folder, with its weights unless others or none are wanted."""
    from keras_maskrcnn.weights import preset_folder, transfer

    config, stored = preset["config"], preset["weights"]
    if num_classes not in (None, config.get("num_classes")):
        overrides = {"num_classes": num_classes, "class_names": None, **overrides}
    overrides = {key: _serialised(value) for key, value in overrides.items()}
    wanted = overridden(config, overrides)
    if weights is not None:
        model = _build(model_class, preset, wanted)
        if weights:
            _load(model, weights, None)
        return model
    preset_folder.verify(stored)
    model = _build(model_class, preset, config)
    preset_folder.load(model, stored["path"])
    _reset_state(model)
    if not overrides:
        return model
    changed = _build(model_class, preset, wanted)
    transfer.copy(model, changed, stored["path"])
    return changed


def _for_images(config, overrides):
    """The configuration of a preset with the statistics and the backbone's input for the images in `overrides`."""
    ours, wanted = (
        ImageType(source.get("channels", 3), source.get("image_dtype", "uint8"))
        for source in (config, {**config, **overrides})
    )
    if wanted == ours:
        return config
    names = [name for name in ("pixel_mean", "pixel_std") if config.get(name) is not None]
    config = {**config, **{name: wanted.statistics(config[name], of=ours) for name in names}}
    backbone = config.get("backbone")
    if isinstance(backbone, dict) and str(backbone.get("registered_name")).startswith("keras_maskrcnn>"):
        options = {**backbone["config"], "input_channels": wanted.channels}
        config["backbone"] = {**backbone, "config": options}
    return config


def _serialised(value):
    """Layers as dicts, as in a configuration; other values unchanged."""
    layers = value if isinstance(value, list | tuple) else [value]
    is_layer = layers and all(isinstance(layer, keras.layers.Layer) for layer in layers)
    return keras.saving.serialize_keras_object(value) if is_layer else value


def _build(model_class, preset, config):
    """A model from its configuration; every error is one line with the folder."""
    try:
        return model_class.from_config(copy.deepcopy(config))  # Keras changes the configuration of a functional model
    except Exception as error:  # constructors and Keras raise exceptions of any class
        folder = preset["weights"]["path"].parent
        raise DataError(folder, f"cannot be built ({type(error).__name__}: {str(error)[:300]})") from error


def _load(model, path, source):
    """Weights of this library, or of a project that has a name map."""
    from keras_maskrcnn.weights import keras_file, load

    if str(path).endswith(".weights.h5"):
        keras_file.check(path)
        model.load_weights(path)
    elif source is None:
        hint = "weights.load(model, path, source) loads those of other projects"
        raise DataError(path, f"is no .weights.h5 file, which a folder's model takes; {hint}")
    else:
        load(model, path, source)


def _reset_state(model):
    """Forgets what belongs to the training that ended."""
    for metric in model.metrics:
        metric.reset_state()
    model.skipped_images.assign(np.full(model.skipped_images.shape, -1, "int32"))


def _conventions(model):
    """What a reader of the weights must know besides the configuration."""
    boxes = "x1, y1, x2, y2 in continuous pixels of the image: pixel i covers i to i + 1"
    return {
        "pixels": f"{_channels(model.image_type)}; mean {list(model.pixel_mean)}, "
        f"standard deviation {list(model.pixel_std)}",
        "labels": "1 to num_classes in the order of class_names; 0 is background",
        **({"boxes": boxes} if of_objects(model.schema) else {}),
    }


def _channels(image_type):
    kind = "R, G, B" if image_type.channels == 3 else f"channels: {image_type.channels}"
    return f"{kind}, 0 to {255 * image_type.scale}"


def _compare(model, loaded, tolerance):
    """Raises a ValueError unless a model has the weights of another one, up to a relative tolerance."""
    for one, other in zip(model.weights, loaded.weights, strict=True):
        if not keras.backend.is_float_dtype(one.dtype):
            continue
        given, found = (np.asarray(keras.ops.convert_to_numpy(v), "float32") for v in (one, other))
        if given.shape != found.shape or not np.allclose(found, given, rtol=tolerance, atol=tolerance * 2**-14):
            raise ValueError(f"{one.path} is not restored from the preset: the model is not saved")


def _folder():
    return resources.files("keras_maskrcnn") / "presets"
