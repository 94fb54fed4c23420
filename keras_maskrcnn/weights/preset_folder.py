"""Folders that hold a model: how it is built, what it is, and its weights.

    config.json        class and constructor arguments, as Keras serialises them
    metadata.json      description, conventions, licence, metrics and source; versions; name, bytes and sha256 of the
                       file with the weights
    model.weights.h5   the weights in Keras' format, or model.safetensors with the same arrays

Names and formats are those of Keras and KerasHub; `keras.saving.load_model(folder)` reads such a folder too, but does
not check it. No pickle and no code is read.
"""

import contextlib
import hashlib
import pathlib
import re
import tempfile
import warnings

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.json_text import loads
from keras_maskrcnn.data.paths import regular
from keras_maskrcnn.weights import files, keras_file

CONFIG, METADATA = "config.json", "metadata.json"
FILES = {"h5": keras_file.WEIGHTS, "safetensors": "model.safetensors"}


def is_preset(folder):
    """Whether a folder has the two JSON files of a preset."""
    return all((pathlib.Path(folder) / name).is_file() for name in (CONFIG, METADATA))


def read(folder):
    """What a folder says about its model; the weights are not read.

    Args:
        folder: str or Path.

    Returns:
        dict with `class`, the registered name; `config`, the constructor arguments; `description`, `conventions`,
        `version`, that of this package; and `weights`: `file`, `bytes`, `sha256`, `dtype`, `classes`, `licence`,
        `source`, `metrics`, and `path` of the file.

    Raises:
        DataError: a file is missing or damaged; the message is one line with its name.
    """
    folder = pathlib.Path(folder)
    if folder.is_dir() and not is_preset(folder):
        raise DataError(folder, f"is no preset: there is no {CONFIG} and {METADATA}")
    stored, metadata = _json(folder / CONFIG), _json(folder / METADATA)
    name, config, weights = stored.get("registered_name"), stored.get("config"), metadata.get("weights")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise DataError(folder / CONFIG, "has no registered_name and config of a model")
    if not isinstance(weights, dict) or not re.fullmatch("[0-9a-f]{64}", str(weights.get("sha256"))):
        raise DataError(folder / METADATA, "has no sha256 of the weights")
    if weights.get("file") not in FILES.values():  # a plain name: no other folder can be reached
        listed = " or ".join(FILES.values())
        raise DataError(folder / METADATA, f"names the weights {str(weights.get('file'))[:80]!r}, not {listed}")
    return {
        "class": name,
        "config": config,
        "description": metadata.get("description"),
        "conventions": metadata.get("conventions") or {},
        "version": metadata.get("keras_maskrcnn_version"),
        "weights": {**weights, "path": folder / weights["file"]},
    }


def verify(weights):
    """Checks that a weight file is the one that the metadata describes.

    Args:
        weights: dict, `read(folder)["weights"]`.

    Raises:
        DataError: the file is missing, or has other bytes; the message is one line with its name.
    """
    path = weights["path"]
    if not path.is_file():
        raise DataError(path, "no such file")
    if path.stat().st_size != weights.get("bytes"):
        raise DataError(path, f"has {path.stat().st_size} bytes, not {weights.get('bytes')} as in {METADATA}")
    if (found := sha256(path)) != weights["sha256"]:
        raise DataError(path, f"has the sha256 {found[:16]}…, not {weights['sha256'][:16]}… as in {METADATA}")


def load(model, path):
    """Loads all weights of a model from a file; the optimizer is not among them.

    Args:
        model: Keras model.
        path: Path of a `.weights.h5` or `.safetensors` file that `save` wrote.

    Raises:
        DataError: the file is damaged, holds numbers that are not finite, or belongs to another configuration.
    """
    with _as_h5(path) as file, warnings.catch_warnings():
        keras_file.check(file)
        warnings.filterwarnings("error", "Skipping nested container")  # weights that would keep their initial values
        try:
            model.load_weights(file)
        except Exception as error:  # Keras raises exceptions of any class
            raise DataError(path, f"does not fit the model ({type(error).__name__}: {str(error)[:300]})") from error


def write(arrays, path):
    """Writes a dict from names to arrays in the format of the file's name, see `FILES`."""
    if path.name == FILES["h5"]:
        import h5py

        # A third of the overhead per array of HDF5's default, which also programs before 2008 can read.
        with h5py.File(path, "w", libver=("v108", "v108")) as file:
            for name, array in arrays.items():
                file[name] = array
        return
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise DataError(path.name, "requires the package safetensors: pip install safetensors") from error
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)


@contextlib.contextmanager
def _as_h5(path):
    """Path of a `.weights.h5` file with the arrays of a file of either format."""
    if path.name.endswith(FILES["h5"]):
        yield path
        return
    arrays = files.read(path)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(path, f"{name} has numbers that are not finite")
    with tempfile.TemporaryDirectory() as work:
        write(arrays, pathlib.Path(work) / FILES["h5"])
        yield pathlib.Path(work) / FILES["h5"]


def _json(path):
    try:
        content = loads(regular(path).read_text(encoding="utf-8"))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(path, f"is damaged, not JSON ({str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise DataError(path, "is damaged, not a JSON object")
    return content


def sha256(path):
    """The SHA-256 of a file as 64 hex digits; a DataError if it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
