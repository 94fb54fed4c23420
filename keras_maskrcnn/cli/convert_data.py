"""`convert-data`: annotations of any format as COCO JSON, YOLO text or TFRecord files."""

import importlib
import shlex

from keras_maskrcnn.cli.common import counted, image_type_arguments
from keras_maskrcnn.data.urls import Url, as_path
from keras_maskrcnn.progress import bar

EXAMPLE = "balloon balloon.json\n  python -m keras_maskrcnn convert-data balloon records --format tfrecord"
ENDINGS = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".record": "tfrecord", ".tfrecord": "tfrecord"}
KERAS = False  # neither Keras nor its backend is imported, unless for a URL
YOLO_SPLITS = {"all": "train", "valid": "val", "validation": "val"}  # names of splits that differ in data.yaml


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("data", type=as_path, metavar="IN", help="any format of data.splits: COCO, VIA, YOLO, TFRecord, …")
    add("out", type=as_path, metavar="OUT", nargs="?", help="NAME.json, NAME.tfrecord, data.yaml, or a folder")
    add("--output", type=as_path, metavar="OUT", help="the same as OUT")
    add("--format", choices=("coco", "yolo", "tfrecord"), help="format to write (default: by the ending of OUT)")
    add("--split", help="part of the data set (default: all)")
    add("--shards", type=int, metavar="N", help="number of TFRecord files per split (default: one per 1000 images)")
    add("--index", action="store_true", help="write only the index of TFRecord files of another program, beside them")
    add("--strict", action="store_true", help="stop at bad input; by default it is left out, counted and listed")
    image_type_arguments(parser)


def run(args):
    """Writes the annotations of a data set as COCO JSON, YOLO text or TFRecord files."""
    from keras_maskrcnn import data
    from keras_maskrcnn.data import formats

    if any(isinstance(path, Url) for path in (args.data, args.out, args.output)):
        importlib.import_module("keras_maskrcnn.quiet")  # before TensorFlow, whose file systems read and write URLs
    if args.index:
        return _index(args)
    out = _out(args)
    kind = args.format or ENDINGS.get(out.suffix)
    if kind is None:
        raise ValueError(f"{out}: give --format coco, yolo or tfrecord, or one of the endings {', '.join(ENDINGS)}")
    if isinstance(out, Url) and kind != "tfrecord":
        raise ValueError(f"{out}: only --format tfrecord is written to a URL")
    if args.shards and kind != "tfrecord":
        raise ValueError("--shards is for --format tfrecord")
    if args.split:
        datasets = {args.split: data.open(args.data, args.split)}
    else:
        datasets = {split: opener() for split, opener in sorted(formats.parts(args.data).items())}
    datasets = {split: dataset.decoded(args.channels, args.image_dtype) for split, dataset in datasets.items()}
    if args.strict:
        datasets = {split: data.Strict(dataset) for split, dataset in datasets.items()}
    several, write = len(datasets) > 1, {"coco": _coco, "yolo": _yolo, "tfrecord": _tfrecord}[kind]
    try:
        for split, dataset in datasets.items():
            write(dataset, out, split, several, args)
    finally:
        data.print_left_out(*datasets.values())
    return 0


def _index(args):
    """Writes the index of TFRecord files."""
    from keras_maskrcnn import data
    from keras_maskrcnn.data import formats

    if args.out or args.output:
        raise ValueError("--index writes beside IN: give no OUT")
    for opener in formats.parts(args.data).values():
        if opener.func is not data.TfRecord:
            raise ValueError(f"--index is for TFRecord files, and {args.data} is read by {opener.func.__name__}")
        for written in data.write_index(*opener.args):
            print(written)
    return 0


def _out(args):
    if (args.out is None) == (args.output is None):
        raise ValueError("give one OUT" if args.out is None else "give OUT or --output, not both")
    return args.out or args.output


def _bar(dataset):
    """Function of the number of images done that shows the progress; None unless stderr is a terminal."""
    show = bar("images")
    return show and (lambda done: show(done, len(dataset)))


def _named(out, split, several, ending):
    """Path of a split: OUT, with the name of the split if there are several; in OUT if that has no ending."""
    if not out.suffix:
        return out / f"{split}{ending}"
    return out.with_name(f"{out.stem}_{split}{out.suffix}") if several else out


def _counted(dataset):
    return counted(len(dataset) - len(dataset.skipped), "image")


def _coco(dataset, out, split, several, args):
    from keras_maskrcnn import data

    path = _named(out, split, several, ".json")
    folder = data.write_coco(dataset, path, _bar(dataset))
    print(f"{path}: {_counted(dataset)} in {folder}")
    files = f"--annotations {shlex.quote(str(path))} --images {shlex.quote(str(folder))}"
    print(f"next: python train/coco.py {files} --output runs/mine")


def _tfrecord(dataset, out, split, several, args):
    from keras_maskrcnn import data

    path = _named(out, split, several, ".tfrecord")
    files = data.write_tfrecord(dataset, path, args.shards, _bar(dataset))
    print(f"{files[0]}{f' to {files[-1].name}' if len(files) > 1 else ''}: {_counted(dataset)}")


def _yolo(dataset, out, split, several, args):
    from keras_maskrcnn import data

    folder = out.parent if out.suffix in ENDINGS else out
    split = YOLO_SPLITS.get(split, split)
    written = data.write_yolo(dataset, folder, split, _bar(dataset))
    print(f"{folder / 'images' / split}: {counted(written.images, 'image')}, {counted(len(written.ious), 'instance')}")
    if written.ious:
        mean, least = sum(written.ious) / len(written.ious), min(written.ious)
        print(f"  IoU of masks and polygons: mean {mean:.4f}, least {least:.4f}")
    if written.joined or written.holes:
        print(
            f"  {written.joined} of several parts and {written.holes} with holes: one polygon, joined by double lines"
        )
    if written.crowds:
        print(f"  {counted(written.crowds, 'crowd')} left out: YOLO text has none")
