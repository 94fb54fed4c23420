"""`export`: a `.keras` file to a SavedModel."""

import pathlib

from keras_maskrcnn.cli.common import check_outputs, load, model_argument

EXAMPLE = "--model runs/penn/model.keras --output saved_models/penn"


def arguments(parser):
    """Adds the verb's arguments."""
    model_argument(parser)
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder of the SavedModel")


def run(args):
    """Writes a SavedModel that runs with TensorFlow alone, without this package."""
    check_outputs(args)
    if args.model.is_dir():
        raise ValueError(f"{args.model}: is a SavedModel already; export takes a .keras file")
    model = load(args.model)
    model.export(str(args.output))
    print(f"SavedModel: {args.output}")
    print(f"try it: python -m keras_maskrcnn predict --model {args.output} IMAGE --output predictions")
    return 0
