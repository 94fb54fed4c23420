"""`export`: a `.keras` file to a SavedModel."""

import pathlib

from keras_maskrcnn.cli.common import check_outputs, load, model_argument

EXAMPLE = "--model runs/penn/model.keras --output saved_models/penn"


def arguments(parser):
    """Adds the verb's arguments."""
    model_argument(parser)
    add = parser.add_argument
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder of the SavedModel")
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
    reconfigured(load(args.model), args.precision, **thresholds).export(str(args.output))
    print(f"SavedModel: {args.output}")
    print(f"try it: python -m keras_maskrcnn predict --model {args.output} IMAGE --output predictions")
    return 0
