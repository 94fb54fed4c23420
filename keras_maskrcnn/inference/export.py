"""Export of a model to a format that runs without this package, and models with another precision or thresholds."""

import dataclasses
import importlib
import pathlib

from keras_maskrcnn import backend
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular

# Module and reader by format, and formats by suffix of the file.
FORMATS = {
    "saved_model": ("saved_model", "SavedModel"),
    "onnx": ("onnx_file", "OnnxFile"),
    "openvino": ("openvino_file", "OpenVinoFile"),
    "litert": ("litert_file", "LiteRtFile"),
}
SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}
UNWRITTEN = (".h5", ".hdf5", ".keras", ".pb", ".pt", ".pth")  # of models of other formats
NARROW = ("float16", "int8")  # weights of LiteRT


def format_of(path, given=None):
    """Name of the format: the given one, or that of the path's suffix; a SavedModel if it has another.

    Raises:
        ValueError: for an unknown format, or a suffix that is not the format's.
    """
    suffix = pathlib.Path(path).suffix
    of_path = SUFFIXES.get(suffix)
    given = "saved_model" if given == "tf_saved_model" else given  # Keras' name
    if given is not None and given not in FORMATS:
        raise ValueError(f"format={given!r} is not one of {', '.join(FORMATS)}")
    if given not in (None, of_path or "saved_model"):
        expected = next((suffix for suffix, name in SUFFIXES.items() if name == given), None)
        reason = f"ends in {expected}" if expected else "is a folder"
        raise ValueError(f"{path}: the output of the format {given} {reason}")
    return of_path or "saved_model"


def output_format(path, given=None):
    """As `format_of`, for a file or folder that is to be written.

    Raises:
        ValueError: also for the suffix of a file that is not written.
    """
    suffix = pathlib.Path(path).suffix
    if given is None and suffix.lower() in UNWRITTEN:
        raise ValueError(
            f"{path}: {suffix} is not written; a SavedModel is a folder, files end in {', '.join(SUFFIXES)}"
        )
    return format_of(path, given)


def export(model, path, format=None, image_size=None, batch=None, weights=None, calibration=None):
    """Write a model that takes images and returns detections, with preprocessing inside.

    All formats have the outputs of a SavedModel, see `saved_model.saved_model`. The other three are written for
    inference engines, with their class names and this library's description inside:
        onnx, openvino: `images` of any number and size, unless `batch` or `image_size` says otherwise.
        litert: one image of any size on one canvas, that of the model or of `image_size`.

    Args:
        model: an `ImageModel`.
        path: the folder of a SavedModel, or the file `.onnx`, `.xml` (OpenVINO, with its weights in `.bin` beside it)
            or `.tflite` (LiteRT).
        format: "saved_model", "onnx", "openvino" or "litert"; None for that of the suffix.
        image_size: (height, width) of images for whose canvas the file is written, where the model has no canvas of
            its own (`image_size`); larger images are fitted into it. None leaves the canvas open. One canvas is faster.
        batch: number of images of a call; None for any.
        weights: of a LiteRT file: "float16" for half the size, or "int8" for a quarter, where convolutions and dense
            layers multiply in 8 bits with the ranges of each image that they see. None for float32.
        calibration: of an OpenVINO file: sequence of images `[H, W, C]` of the model's type, some hundred of those that
            it will see, for INT8: convolutions and dense layers multiply in 8 bits with the ranges in these images.
            None for float32.

    Raises:
        RuntimeError: if Keras does not run on TensorFlow.
        ValueError: for an unknown format, or options that it does not have.
        DataError: a package that the format needs is not installed.
    """
    if not backend.is_tensorflow():
        raise RuntimeError(
            "export needs the TensorFlow backend: save the model as .keras and export it under KERAS_BACKEND=tensorflow"
        )
    format = output_format(path, format)
    if weights is not None and (format != "litert" or weights not in NARROW):
        others = f"only litert has others than float32, {' and '.join(NARROW)}; INT8 of openvino needs `calibration`"
        raise ValueError(f"weights={weights!r}: {others}")
    if calibration is not None and format != "openvino":
        raise ValueError(f"calibration: for openvino only, not for {format}")
    if calibration is not None and not len(calibration):
        raise ValueError(f"{path}: INT8 needs calibration images")
    module = _module(format)
    if format == "saved_model":
        if image_size is not None or batch is not None:
            raise ValueError("image_size and batch: a SavedModel takes images of any number and size")
        module.saved_model(model, path)
        return
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    options = {"weights": weights, "calibration": calibration}
    options = {name: value for name, value in options.items() if value is not None}
    # The engines' graphs have no bfloat16.
    module.write(reconfigured(model, "float32"), path, fixed(model.placement, image_size), batch, **options)


def is_exported(path):
    """Whether a path is a file or folder in one of the formats."""
    path = pathlib.Path(path)
    return path.suffix in SUFFIXES or (path / "saved_model.pb").is_file()


def opened(path, **options):
    """The reader of an exported model: `SavedModel`, `OnnxFile`, `OpenVinoFile` or `LiteRtFile`.

    Args:
        path: folder or file.
        **options: of the reader.

    Raises:
        DataError: the path holds no such model, or the engine's package is not installed.
    """
    format = format_of(path)
    if format != "saved_model" and not pathlib.Path(regular(path)).is_file():
        raise DataError(path, "no such file")
    return getattr(_module(format), FORMATS[format][1])(path, **options)


def _module(format):
    return importlib.import_module(f"keras_maskrcnn.inference.{FORMATS[format][0]}")


def fixed(placement, image_size):
    """The placement with the canvas of an image (height, width); unchanged for None, or if it has one already."""
    if image_size is None or placement.image_size:
        return placement
    return dataclasses.replace(placement, canvas=placement.place(image_size)[0])


def reconfigured(model, dtype=None, **thresholds):
    """The model with another dtype policy or other thresholds: a new one with the same weights, unless nothing differs.

    Args:
        model: an `ImageModel`.
        dtype: name of the dtype policy of all layers, also of a backbone or head that has its own; None keeps it.
        **thresholds: options of `heads.detection.Detection`; None keeps the model's.

    Raises:
        ValueError: for a threshold outside its range, or of a model without objects.
    """
    thresholds = {name: value for name, value in thresholds.items() if value is not None}
    if dtype is None and not thresholds:
        return model
    config = model.get_config()
    if thresholds and "detection" not in config:
        raise ValueError(f"{', '.join(thresholds)}: {model.name} finds no objects, and has no thresholds")
    if thresholds:
        config["detection"] = {**config["detection"], **thresholds}
    if dtype is not None:
        config = {**_with_policy(config, dtype), "dtype": dtype}
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def _with_policy(config, dtype):
    """The config with the dtype policy in every layer that it contains."""
    if isinstance(config, list | tuple):
        return [_with_policy(part, dtype) for part in config]
    if not isinstance(config, dict):
        return config
    config = {name: _with_policy(part, dtype) for name, part in config.items()}
    # In these two it is the dtype of a tensor.
    if config.get("class_name", "InputLayer") not in ("InputLayer", "__keras_tensor__") and "dtype" in config["config"]:
        config["config"]["dtype"] = dtype
    return config
