"""`predict`: images, videos and cameras to overlays, COCO results, tables, id images and cut-outs."""

import contextlib
import functools
import pathlib

import numpy as np

from keras_maskrcnn.cli import shards
from keras_maskrcnn.cli.common import check_outputs, load, model_argument
from keras_maskrcnn.cli.finder import Finder, Options
from keras_maskrcnn.cli.inputs import Listing
from keras_maskrcnn.cli.pictures import Names, unique_names
from keras_maskrcnn.cli.progress import Tally

__all__ = ["EXAMPLE", "arguments", "run", "unique_names"]

EXAMPLE = "--model runs/demo/model.keras photos --output predictions --json found.json --csv found.csv"


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    inputs = "images, videos, folders of them, patterns, - (paths on stdin, one a line), webcam, number of a camera"
    add("inputs", nargs="+", metavar="INPUT", help=inputs)
    model_argument(parser)
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder for the overlays (PNG, videos MP4)")
    add("--recursive", action="store_true", help="read folders inside folders")
    add("--every", type=int, default=1, metavar="N", help="of videos, read each N-th frame only (default: all)")
    shards.arguments(parser)
    results = parser.add_argument_group("results, each written image by image")
    add = results.add_argument
    add("--json", type=pathlib.Path, metavar="FILE", help="COCO results, masks as run lengths")
    add("--annotations", type=pathlib.Path, metavar="FILE", help="COCO file with the image and category ids for --json")
    add(
        "--csv", type=pathlib.Path, metavar="FILE", help="one row per object: class, score, box, area, circumference, …"
    )
    add("--ids", action="store_true", help="DIR/ids: 16-bit PNG files, each pixel the number of its object, or class")
    add("--cutouts", action="store_true", help="DIR/cutouts: a PNG file of each object, transparent outside its mask")
    add("--panoptic", action="store_true", help="DIR/panoptic and panoptic.json: COCO panoptic results; drawn, too")
    least = "pixels below which --panoptic leaves out a region of stuff (default: %(default)s, for photos)"
    add("--stuff-area", type=int, default=4096, metavar="N", help=least)
    add("--frames", action="store_true", help="overlays of videos as a PNG file per frame")
    add("--no-overlays", action="store_true", help="draw nothing")
    detection = parser.add_argument_group("detection")
    add = detection.add_argument
    threshold = "minimum score (default: the model's option, or 0.5)"
    add("--score", "--score-threshold", dest="score_threshold", type=float, metavar="S", help=threshold)
    overlap = "maximum overlap of two boxes of a class (default: the model's)"
    add("--nms", "--nms-iou", dest="nms_iou", type=float, metavar="IOU", help=overlap)
    most = "maximum number of objects per image, and per tile (default: the model's)"
    add("--max", "--max-detections", dest="max_detections", type=int, metavar="N", help=most)
    add("--classes", nargs="+", metavar="NAME", help="only objects of these classes, of those that --max allows")
    add("--tiles", nargs=2, type=int, metavar=("H", "W"), help="larger images are detected in by tiles of H x W pixels")
    add("--overlap", type=int, metavar="N", help="pixels that neighbouring tiles share (default: the model's)")
    views = "merge detections in the flipped image (flip) and in other sizes, such as flip,0.75,1.25"
    add("--tta", metavar="VIEWS", help=f"test-time augmentation: {views}")


def run(args):
    """Detects objects in images and videos, and writes overlays and results. A file that fails does not stop others."""
    _check(args)
    options = Options.of(args)
    model = load(args.model)
    finder = Finder(model, args.model, options, args.annotations)
    finder.check_objects({name: getattr(args, name) for name in ("json", "annotations", "csv", "cutouts", "shard")})
    if args.shard is not None:
        return shards.run(args, finder, options)
    tally = Tally(args.debug, noun="object" if finder.finds_objects else "region")
    inputs = Listing(args.recursive, tally).sources(args.inputs)
    if "-" not in args.inputs:
        inputs = list(inputs)
        tally.total = len(inputs)
    with contextlib.ExitStack() as opened:
        overlays, writers = _writers(args, finder, opened)
        for item, found in finder.found_in(inputs, Names().of):
            if found is not None:
                _write(item, found, writers, tally, overlays)
            elif item.error is not None:
                tally.failed(item.error, item.source)
    for name, path in (("COCO results", args.json), ("table", args.csv)):
        if path:
            print(f"{name}: {path}")
    return tally.finish()


def _write(picture, found, writers, tally, overlays):
    """Writes the results of a picture; `found` may be the exception that ended them."""
    try:
        if isinstance(found, Exception):
            raise found
        for writer in writers:
            writer.add(picture, found)
    except Exception as error:
        tally.failed(error, picture.source, picture.frame)
    else:
        tally.done(picture, _number(found), overlays and overlays.where)


def _check(args):
    check_outputs(args)
    if args.shard is not None:
        _check_shard(args)
    elif args.retry_failed:
        raise ValueError("--retry-failed continues the results of --shard, which is not given")
    elif args.annotations and not (args.json or args.panoptic):
        raise ValueError("--annotations sets the ids in --json, which is not given")
    if args.csv and args.csv.is_dir():
        raise ValueError(f"--csv {args.csv}: is a folder, not a file")


def _check_shard(args):
    shards.Shard.of(args.shard)
    for name in ("json", "csv", "ids", "cutouts", "panoptic", "frames"):
        if getattr(args, name):
            raise ValueError(f"--{name} is not possible with --shard, whose results `join` makes a COCO file of")
    cameras = [word for word in args.inputs if word == "webcam" or word.isdecimal()]
    if any(not pathlib.Path(word).exists() for word in cameras):
        raise ValueError(f"--shard: the camera {cameras[0]} cannot be divided")


def _number(found):
    """Number of the objects, or of the classes in a map."""
    return len(found["labels"]) if "labels" in found else np.count_nonzero(np.unique(found["semantic"]))


def _draw(class_names, image, found, scale):
    from keras_maskrcnn import visualize

    return visualize.draw(image, found, class_names, scale=scale)


def _writers(args, finder, opened):
    """The writer of overlays or None, and all writers in a list; `opened`, an ExitStack, closes them."""
    from keras_maskrcnn.cli import results
    from keras_maskrcnn.cli.panoptic_results import Merging, PanopticResults

    class_names, merging = finder.class_names, Merging(finder, args.stuff_area) if args.panoptic else None
    draw = merging.draw if merging else functools.partial(_draw, class_names)
    asked = (
        (not args.no_overlays, lambda: results.Overlays(args.output, draw, args.frames)),
        (args.json, lambda: results.JsonResults(args.json, class_names, finder.ids)),
        (args.csv, lambda: results.CsvRows(args.csv, class_names)),
        (args.ids, lambda: results.IdImages(args.output / "ids")),
        (args.cutouts, lambda: results.CutOuts(args.output / "cutouts")),
        (merging, lambda: PanopticResults(args.output / "panoptic", merging, finder.num_classes, finder.ids)),
    )
    writers = [opened.enter_context(contextlib.closing(make())) for is_asked, make in asked if is_asked]
    return (None if args.no_overlays else writers[0]), writers
