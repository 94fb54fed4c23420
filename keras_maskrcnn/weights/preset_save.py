"""Writes preset folders, see `preset_folder`."""

import datetime
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

from keras_maskrcnn.weights import preset_folder
from keras_maskrcnn.weights.preset_folder import CONFIG, FILES, METADATA
from keras_maskrcnn.weights.stored_numbers import decode

DTYPES = ("float32", "float16")


def save(model, folder, card, dtype="float32", format="h5", check=None):
    """Writes a folder; it appears, or replaces a preset, only when it is complete.

    Args:
        model: registered Keras model with `num_classes`.
        folder: str or Path: a new or empty folder, or one that holds a preset. Other files in it are kept.
        card: dict of `description`, `conventions`, `licence`, `source` and `metrics`.
        dtype: "float32", or "float16" for half the size. Arrays with numbers out of float16's range, and those that
            are no floating-point numbers, keep their dtype.
        format: "h5" or "safetensors".
        check: function of the new folder that runs before anything is replaced.

    Raises:
        ValueError: in one line, for another dtype or format, weights that are not finite, a class that is not
            registered with Keras, a card that is not JSON, or a folder that holds something else.
    """
    if dtype not in DTYPES or format not in FILES:
        raise ValueError(f"dtype={dtype!r}, format={format!r}: dtype is float32 or float16, format h5 or safetensors")
    folder = pathlib.Path(folder).resolve()
    if folder.exists() and not (folder.is_dir() and (preset_folder.is_preset(folder) or not any(folder.iterdir()))):
        raise ValueError(f"{folder}: holds no preset, so it is not replaced; give a new folder")
    config = _class_and_config(model)
    arrays = {name: _stored(name, array, dtype) for name, array in _arrays(model).items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        new = pathlib.Path(work) / folder.name
        new.mkdir()
        (new / CONFIG).write_text(config, encoding="utf-8")
        preset_folder.write(arrays, new / FILES[format])
        (new / METADATA).write_text(_metadata(model, new / FILES[format], dtype, card), encoding="utf-8")
        if check:
            check(new)
        _replace(folder, new)


def _class_and_config(model):
    """Content of config.json."""
    import keras

    stored = keras.saving.serialize_keras_object(model)
    if keras.saving.get_registered_object(stored["registered_name"] or "") is not type(model):
        decorator = "@keras.saving.register_keras_serializable"
        raise ValueError(f"{type(model).__name__} is not registered with Keras: decorate it with {decorator}")
    return _dumped({name: stored[name] for name in ("module", "class_name", "config", "registered_name")}, "config")


def _metadata(model, path, dtype, card):
    """Content of metadata.json; `path` is the file with the weights."""
    import keras

    import keras_maskrcnn

    content = {
        "keras_version": keras.__version__,
        "keras_maskrcnn_version": keras_maskrcnn.__version__,
        "parameter_count": sum(layer.count_params() for layer in model.layers),
        "date_saved": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d@%H:%M:%S"),
        "description": card.get("description"),
        "conventions": card.get("conventions"),
        "weights": {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": preset_folder.sha256(path),
            "dtype": dtype,
            "classes": model.num_classes,
            **{name: card.get(name) for name in ("licence", "source", "metrics")},
        },
    }
    return _dumped(content, "description, licence, source or metrics")


def _dumped(content, what):
    try:
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be stored as JSON ({error})") from error


def _arrays(model):
    """The model's weights as Keras stores them, without the optimizer's: dict from path to array."""
    import h5py

    with tempfile.TemporaryDirectory() as work:
        path = pathlib.Path(work) / FILES["h5"]
        model.save_weights(path)
        found = {}
        with h5py.File(path, "r") as file:
            file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
    return {name: array for name, array in found.items() if not name.startswith("optimizer/")}


def _stored(name, array, dtype):
    """An array in the dtype of the file."""
    if array.dtype.kind == "V":  # bfloat16, which HDF5 does not know
        array = decode(np.ascontiguousarray(array).reshape(-1).view(np.uint8), "bfloat16").reshape(array.shape)
    if array.dtype.kind != "f":
        return array
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has numbers that are not finite: the model is not saved")
    with np.errstate(over="ignore"):
        small = array.astype(dtype)
    return small if np.isfinite(small).all() else array


def _replace(folder, new):
    """Puts a complete folder in the place of an earlier one, with the other files of that one."""
    if not folder.exists():
        new.rename(folder)
        return
    for other in folder.iterdir():
        if other.name not in (CONFIG, METADATA, *FILES.values()):
            if other.is_dir() and not other.is_symlink():
                shutil.copytree(other, new / other.name, symlinks=True)
            else:
                shutil.copy2(other, new / other.name, follow_symlinks=False)
    old = new.with_name(f"{new.name}.old")
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(old, folder)
        raise
