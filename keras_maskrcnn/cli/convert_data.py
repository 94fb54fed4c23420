"""`convert-data`: annotations of any format as a COCO file."""

import pathlib
import sys

EXAMPLE = "balloon --split train --output balloon_train.json"


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("data", type=pathlib.Path, metavar="PATH", help="any format of data.splits: COCO, VIA, YOLO, …")
    add("--split", help="part of the data set, if it has several")
    add("--output", type=pathlib.Path, required=True, metavar="FILE", help="COCO JSON file to write")


def run(args):
    """Writes the annotations of a data set as a COCO file."""
    from keras_maskrcnn import data
    from keras_maskrcnn.cli.common import counted
    from keras_maskrcnn.quiet import keras

    if args.output.suffix != ".json":
        raise ValueError(f"--output {args.output}: is not a .json file")
    dataset = data.open(args.data, args.split)
    bar = keras.utils.Progbar(len(dataset), unit_name="image") if sys.stderr.isatty() else None
    folder = data.write_coco(dataset, args.output, bar.update if bar else None)
    for source, reason in dataset.skipped.items():
        print(f"left out: {source}: {reason}", file=sys.stderr)
    dropped = getattr(dataset, "dropped", {})
    print(f"{args.output}: {counted(len(dataset) - len(dataset.skipped), 'image')} in {folder}")
    if dropped:
        print(f"{counted(len(dropped), 'annotation')} left out, which the log names")
    print(f"next: python train/coco.py --annotations {args.output} --images {folder} --output runs/mine")
    return 0
