"""`export`: a `.keras` file or a preset to a SavedModel, or to a file for ONNX Runtime, OpenVINO or LiteRT."""

import contextlib
import pathlib
import shlex
import shutil
import sys

from keras_maskrcnn.cli.common import check_outputs, load, model_argument

EXAMPLE = "--model runs/penn/model.keras --output saved_models/penn"
MOST = 300  # photos of a folder whose ranges are taken for INT8


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
        "openvino and litert: convolutions and dense layers multiply in 8 bits (default: float32). openvino takes the "
        "ranges of their inputs from the photos in FOLDER, some hundred like those that the model will see "
        f"(at most {MOST} are used); litert takes those of each image that it sees, and does not read FOLDER"
    )
    add("--int8", type=pathlib.Path, nargs="?", const=True, metavar="FOLDER", help=int8)
    add("--batch", type=int, metavar="N", help="onnx and openvino: images of a call (default: any number)")


def run(args):
    """Writes a model that runs without this package."""
    from keras_maskrcnn.inference.export import is_exported, output_format, reconfigured

    format = output_format(args.output, args.format)
    check_outputs(args, folder=format == "saved_model")
    if is_exported(args.model):
        raise ValueError(f"{args.model}: is exported already; export takes a .keras file or a preset")
    weights, photos = _weights(args, format), _photos(args.int8) if format == "openvino" and args.int8 else None
    thresholds = {name: getattr(args, name) for name in ("score_threshold", "nms_iou", "max_detections")}
    target = _target(args, format)
    model = reconfigured(load(args.model), None if weights else args.precision, **thresholds)
    calibration = None if photos is None else Photos.readable(photos, model.image_type)
    print(f"{format}: writing {target}, up to a few minutes", file=sys.stderr)
    with contextlib.nullcontext(target) if args.version is None else _renamed_when_complete(target) as path:
        model.export(path, format, args.image_size, args.batch, weights, calibration)
    print(f"{format}: {target}, {size_of(target) / 1e6:.1f} MB")
    print(f"try it: python -m keras_maskrcnn predict --model {shlex.quote(str(target))} IMAGE --output predictions")
    return 0


def _weights(args, format):
    """The argument `weights` of `model.export`, "float16", "int8" or None.

    Raises:
        ValueError: for a precision that the format does not have, or both kinds of weights.
    """
    if args.int8 is not None and format not in ("litert", "openvino"):
        raise ValueError(f"--int8: not for {format}, see --help")
    if args.int8 is True and format == "openvino":
        raise ValueError("--int8: openvino needs photos for the ranges; give a folder of them, --int8 FOLDER")
    half = args.precision == "float16"
    if (half and format != "litert") or (args.precision == "mixed_bfloat16" and format != "saved_model"):
        raise ValueError(f"--precision {args.precision}: not for {format}, see --help")
    if half and args.int8 is not None:
        raise ValueError("--precision float16 and --int8: give one of them")
    if format == "openvino":
        return None
    if isinstance(args.int8, pathlib.Path):
        print(f"--int8 {args.int8}: the folder is not read, LiteRT takes the ranges of each image that it sees")
    return "float16" if half else "int8" if args.int8 is not None else None


def _photos(folder):
    """Paths of the photos in a folder, spread evenly over their names if there are more than `MOST`.

    Raises:
        ValueError: if there is no such folder, or no photo in it.
    """
    from keras_maskrcnn.cli.inputs import IMAGES

    if not folder.is_dir():
        raise ValueError(f"--int8 {folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    if not paths:
        raise ValueError(f"--int8 {folder}: no image in it ({', '.join(sorted(IMAGES))} are read)")
    count = min(len(paths), MOST)
    return [paths[number * len(paths) // count] for number in range(count)]


class Photos:
    """Sequence of photos, each read when it is needed.

    Args:
        paths: of the files.
        image_type: `ImageType` of the arrays.
    """

    def __init__(self, paths, image_type):
        self.paths, self.image_type = paths, image_type

    @classmethod
    def readable(cls, paths, image_type):
        """The photos that can be read; the others are named in a line each.

        Raises:
            ValueError: if there is none.
        """
        from keras_maskrcnn.data import DataError

        kept = []
        for path in paths:
            try:
                cls([path], image_type)[0]
            except DataError as error:
                print(f"skipped: {error}", flush=True)
            else:
                kept.append(path)
        if not kept:
            raise ValueError(f"--int8 {paths[0].parent}: none of its images can be read")
        return cls(kept, image_type)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        """The array `[H, W, C]` of a photo, turned by its EXIF orientation."""
        from keras_maskrcnn.data.image_file import read_image

        wanted = self.image_type
        return read_image(self.paths[number], channels=wanted.channels, dtype=wanted.dtype)


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
