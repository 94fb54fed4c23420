"""`export`: a `.keras` file or a preset to a SavedModel, or to a file for ONNX Runtime, OpenVINO or LiteRT."""

import contextlib
import pathlib
import shutil

from keras_maskrcnn.cli.common import check_outputs, load, model_argument

EXAMPLE = "--model runs/penn/model.keras --output saved_models/penn"


def arguments(parser):
    """Adds the verb's arguments."""
    model_argument(parser, exported=False)
    add = parser.add_argument
    output = "folder of the SavedModel, or a file .onnx, .xml (OpenVINO) or .tflite (LiteRT)"
    add("--output", required=True, type=pathlib.Path, metavar="PATH", help=output)
    formats = "saved_model, onnx, openvino or litert (default: that of the suffix of --output)"
    add("--format", metavar="FORMAT", help=formats)
    version = "write the SavedModel PATH/N, the layout of TensorFlow Serving; N must not exist yet"
    add("--version", type=int, metavar="N", help=version)
    add("--score-threshold", type=float, metavar="S", help="minimum score (default: the model's option, or 0.05)")
    add("--nms-iou", type=float, metavar="IOU", help="maximum overlap of two boxes of a class (default: the model's)")
    add("--max-detections", type=int, metavar="N", help="maximum number of objects per image (default: the model's)")
    precision = "of the network; float16 of the weights in a litert file (default: the model's, or float32)"
    add("--precision", choices=("float32", "mixed_bfloat16", "float16"), help=precision)
    size = (
        "onnx, openvino and litert, for models without a canvas: one canvas, that of an image of this size (default: "
        "images of any size, except for litert, which needs it)"
    )
    add("--image-size", type=int, nargs=2, metavar=("H", "W"), help=size)
    int8 = (
        "litert: weights of convolutions and dense layers in 8 bits, which multiply in 8 bits with the ranges of each "
        "image that they see; no pictures are needed for it, and FOLDER is not read (default: float32)"
    )
    add("--int8", type=pathlib.Path, nargs="?", const=True, metavar="FOLDER", help=int8)
    add("--batch", type=int, metavar="N", help="onnx and openvino: images of a call (default: any number)")


def run(args):
    """Writes a model that runs without this package."""
    from keras_maskrcnn.inference.export import format_of, is_exported, reconfigured

    format = format_of(args.output, args.format)
    check_outputs(args, folder=format == "saved_model")
    if is_exported(args.model):
        raise ValueError(f"{args.model}: is exported already; export takes a .keras file or a preset")
    weights = _weights(args, format)
    thresholds = {name: getattr(args, name) for name in ("score_threshold", "nms_iou", "max_detections")}
    target = _target(args, format)
    model = reconfigured(load(args.model), None if weights else args.precision, **thresholds)
    with contextlib.nullcontext(target) if args.version is None else _renamed_when_complete(target) as path:
        model.export(path, format, args.image_size, args.batch, weights)
    print(f"{format}: {target}, {size_of(target) / 1e6:.1f} MB")
    print(f"try it: python -m keras_maskrcnn predict --model {target} IMAGE --output predictions")
    return 0


def _weights(args, format):
    """The argument `weights` of `model.export`, "float16", "int8" or None.

    Raises:
        ValueError: for a precision that the format does not have, or both kinds of weights.
    """
    if args.int8 is not None and format != "litert":
        raise ValueError(f"--int8: not for {format}, see --help")
    half = args.precision == "float16"
    if (half and format != "litert") or (args.precision == "mixed_bfloat16" and format != "saved_model"):
        raise ValueError(f"--precision {args.precision}: not for {format}, see --help")
    if half and args.int8 is not None:
        raise ValueError("--precision float16 and --int8: give one of them")
    if isinstance(args.int8, pathlib.Path):
        print(f"--int8 {args.int8}: the folder is not read, LiteRT takes the ranges of each image that it sees")
    return "float16" if half else "int8" if args.int8 is not None else None


def _target(args, format):
    """The path to write: `--output`, or its subfolder of the version.

    Raises:
        ValueError: if the version exists already, because a server may have loaded it, or is not positive, or the
            format is not that of TensorFlow Serving.
    """
    if args.version is None:
        return args.output
    if format != "saved_model":
        raise ValueError(f"--version {args.version}: not for {format}, TensorFlow Serving reads SavedModels")
    if args.version < 1:
        raise ValueError(f"--version {args.version}: must be 1 or more")
    target = args.output / str(args.version)
    if target.exists():
        raise ValueError(f"--version {args.version}: {target} exists already; give a higher version")
    return target


@contextlib.contextmanager
def _renamed_when_complete(target):
    """A folder beside the target that gets its name at the end: TensorFlow Serving loads numbered folders at once."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def size_of(path):
    """Bytes of an exported model: of the files in its folder, or of a file and of the weights beside it."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" else 0)
