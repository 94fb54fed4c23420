"""`export`: a `.keras` file to a SavedModel."""

import contextlib
import pathlib
import shutil

from keras_maskrcnn.cli.common import check_outputs, load, model_argument

EXAMPLE = "--model runs/penn/model.keras --output saved_models/penn"


def arguments(parser):
    """Adds the verb's arguments."""
    model_argument(parser)
    add = parser.add_argument
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder of the SavedModel")
    add("--version", type=int, metavar="N", help="write DIR/N, the layout of TensorFlow Serving; N must not exist yet")
    add("--score-threshold", type=float, metavar="S", help="minimum score (default: the model's option, or 0.05)")
    add("--nms-iou", type=float, metavar="IOU", help="maximum overlap of two boxes of a class (default: the model's)")
    add("--max-detections", type=int, metavar="N", help="maximum number of objects per image (default: the model's)")
    add("--precision", choices=("float32", "mixed_bfloat16"), help="of the network (default: the model's)")


def run(args):
    """Writes a SavedModel that runs with TensorFlow alone, without this package."""
    check_outputs(args)
    if (pathlib.Path(args.model) / "saved_model.pb").is_file():
        raise ValueError(f"{args.model}: is a SavedModel already; export takes a .keras file or a preset")
    from keras_maskrcnn.inference.export import reconfigured

    thresholds = {name: getattr(args, name) for name in ("score_threshold", "nms_iou", "max_detections")}
    target = _target(args)
    with contextlib.nullcontext(target) if args.version is None else _renamed_when_complete(target) as folder:
        reconfigured(load(args.model), args.precision, **thresholds).export(str(folder))
    print(f"SavedModel: {target}")
    print(f"try it: python -m keras_maskrcnn predict --model {target} IMAGE --output predictions")
    return 0


def _target(args):
    """The folder of the SavedModel: `--output`, or its subfolder of the version.

    Raises:
        ValueError: if the version exists already, because a server may have loaded it, or is not positive.
    """
    if args.version is None:
        return args.output
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
