"""What several verbs need: the model argument, loading, JSON, and one line for an error."""

import json
import pathlib
import sys


def model_argument(parser):
    """Adds `--model`, which `load` takes."""
    parser.add_argument("--model", required=True, type=pathlib.Path, help="a .keras file or the folder of a SavedModel")


def load(path):
    """The model in a `.keras` file, or a SavedModel folder behind the same `detect`."""
    import keras

    import keras_maskrcnn.models  # its classes must be known before Keras reads a file that names them
    from keras_maskrcnn.data import DataError
    from keras_maskrcnn.inference.saved_model import SavedModel

    if not path.exists():
        raise DataError(path, "no such model")
    if path.is_dir():
        return SavedModel(path)
    model = keras.saving.load_model(path, compile=False)
    if not isinstance(model, keras_maskrcnn.MaskRCNN):
        raise DataError(path, f"holds a {type(model).__name__}, not a model of this package")
    return model


def write_json(path, content):
    """Writes JSON, into a folder that is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def counted(count, noun):
    """Such as "1 picture" or "2 pictures"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def fail(error, path=None):
    """Writes one line on stderr, with the path unless the message names it. Returns the exit code of a failure."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Exception) and not isinstance(error, (ValueError, OSError)):
        message = f"{type(error).__name__}: {message}"
    if path is not None and str(path) not in message:
        message = f"{path}: {message}"
    print(f"error: {message}", file=sys.stderr)
    return 2
