"""Shared by the verbs: the argument for the model, loading, JSON output, and one-line error messages."""

import hashlib
import json
import os
import pathlib
import sys

from keras_maskrcnn import atomic

MODEL = (
    "a .keras file, the folder of a SavedModel or preset, an exported .onnx, .xml (OpenVINO) or .tflite (LiteRT) file, "
    "hf://user/name, or the name of a preset with weights"
)
TRAINED = "a .keras file, the folder of a preset, hf://user/name, or the name of a preset with weights"
PROGRAM = "A SavedModel is a program that TensorFlow runs: open only those of a source that you trust"


def model_argument(parser, exported=True):
    """Adds `--model`, what `load` takes, with or without exported models."""
    parser.add_argument("--model", required=True, help=f"{MODEL}. {PROGRAM}" if exported else TRAINED)


def image_type_arguments(parser):
    """Adds `--channels` and `--image-dtype`, arguments of `Dataset.decoded`."""
    add = parser.add_argument
    add("--channels", type=int, default=3, help="channels of the images, 1 to 8 (default: %(default)s, R, G, B)")
    add("--image-dtype", choices=("uint8", "uint16"), default="uint8", help="of the images (default: %(default)s)")


def load(model):
    """The model in a `.keras` file or a preset, or an exported one; all have the same `detect`.

    Args:
        model: str or Path, see `MODEL`. The name of a preset comes before a file or folder.

    Raises:
        DataError: if there is no such model, or the file holds another kind of Keras model.
    """
    import keras_maskrcnn.models  # noqa: F401, registers the classes that a file may contain
    from keras_maskrcnn.data import DataError
    from keras_maskrcnn.inference.export import SUFFIXES, opened
    from keras_maskrcnn.models import presets
    from keras_maskrcnn.models.image_model import ImageModel
    from keras_maskrcnn.weights import keras_file

    if presets.holds_weights(model):
        return ImageModel.from_preset(model)
    path = pathlib.Path(model)
    if str(model) in presets.published():
        raise DataError(model, _not_found(model, presets))
    if path.is_dir() or (path.is_file() and path.suffix in SUFFIXES):
        return opened(path)
    if not path.exists():
        raise DataError(model, _not_found(model, presets))
    loaded = keras_file.load(path)
    if not isinstance(loaded, ImageModel):
        raise DataError(path, f"holds a {type(loaded).__name__}, not a model of this package")
    return loaded


def _not_found(model, presets):
    """Why a model that is no file cannot be opened."""
    if str(model) in presets.published():
        return "is a preset without weights; `convert` makes a model of it from published ones"
    return f"no such model: give {MODEL} ({', '.join(presets.shipped()) or 'none ships with this version'})"


def fingerprint(model):
    """What tells a model from others: "sha256" and digits of the hash of its files; a name that is no file as it is.

    Args:
        model: str or Path that `load` takes.
    """
    from keras_maskrcnn.models import presets
    from keras_maskrcnn.weights.preset_folder import sha256

    path = pathlib.Path(model)
    if presets.holds_weights(model):
        weights = presets.read(model)["weights"]["path"]
        files = [weights, weights.with_name("config.json")]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        weights = [path.with_suffix(".bin")] if path.suffix == ".xml" else []  # of OpenVINO
        files = [file for file in (path, *weights) if file.is_file()]
    if not files:
        return str(model)
    digests = "".join(sha256(file) for file in files)
    return f"sha256 {hashlib.sha256(digests.encode()).hexdigest()[:16]}"


def check_outputs(args, folder=True):
    """Raises a ValueError, before any work, if `--output` is a file in place of a folder, or `--json` the reverse.

    Args:
        args: of the verb, with `output`, `json` and `html` as far as it has them.
        folder: whether `--output` is a folder; otherwise it is a file.
    """
    output = getattr(args, "output", None)
    if output and output.exists() and output.is_dir() != folder:
        kinds = ("file", "folder") if folder else ("folder", "file")
        raise ValueError(f"--output {output}: is a {kinds[0]}, not a {kinds[1]}")
    for name in ("json", "html"):
        file = getattr(args, name, None)
        if file and file.is_dir():
            raise ValueError(f"--{name} {file}: is a folder, not a file")


def write_json(path, content):
    """Writes figures or results as JSON, see `evaluation.for_json`; creates the folder if it is missing."""
    from keras_maskrcnn.evaluation import for_json

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps(for_json(content), indent=1, allow_nan=False) + "\n")


def counted(count, noun):
    """The count and the noun, such as "1 image" or "2 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def fail(error, path=None):
    """Prints one line on stderr, with the path unless the message contains it. Returns the exit code for an error."""
    message = reason_of(error)
    if path is not None and str(path) not in message:
        message = f"{path}: {message}"
    print(f"error: {message}", file=sys.stderr)
    return 2


def reason_of(error):
    """An exception or a message in one line; of an unexpected exception with its class."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        needed = error.name == os.environ.get("KERAS_BACKEND")
        return f"{error.name} is not installed" + (f", and KERAS_BACKEND={error.name} needs it" if needed else "")
    if isinstance(error, Exception) and not isinstance(error, (ValueError, OSError)):
        return f"{type(error).__name__}: {message}"
    return message
