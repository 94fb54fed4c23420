"""`predict`: images, videos and cameras to overlays, COCO results, tables, id images and cut-outs."""

import collections
import contextlib
import itertools
import pathlib

import numpy as np

from keras_maskrcnn.cli.common import check_outputs, load, model_argument
from keras_maskrcnn.cli.inputs import pictures, sources, unique_names
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
    results = parser.add_argument_group("results, each written image by image")
    add = results.add_argument
    add("--json", type=pathlib.Path, metavar="FILE", help="COCO results, masks as run lengths")
    add("--annotations", type=pathlib.Path, metavar="FILE", help="COCO file with the image and category ids for --json")
    add(
        "--csv", type=pathlib.Path, metavar="FILE", help="one row per object: class, score, box, area, circumference, …"
    )
    add("--ids", action="store_true", help="DIR/ids: 16-bit PNG files, each pixel the number of its object, or class")
    add("--cutouts", action="store_true", help="DIR/cutouts: a PNG file of each object, transparent outside its mask")
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
    model = load(args.model)
    finds_objects = _check_objects(args, model)
    wanted = _labels(args.classes, model.class_names)
    ids = _coco_ids(args.annotations, model.class_names)
    tally = Tally(args.debug, noun="object" if finds_objects else "region")
    inputs = sources(args.inputs, args.recursive, tally)
    if "-" not in args.inputs:
        inputs = list(inputs)
        tally.total = len(inputs)
    with contextlib.ExitStack() as opened:
        overlays, writers = _writers(args, model.class_names, ids, opened)
        images = pictures(inputs, args.every, ids, model.image_type, tally)
        for picture, found in _detections(_detector(model, args), images, args, tally):
            if wanted is not None:
                found = found.rows(np.isin(found["labels"], wanted))
            try:
                for writer in writers:
                    writer.add(picture, found)
            except Exception as error:
                tally.failed(error, picture.source, picture.frame)
            else:
                tally.done(picture, _number(found), overlays and overlays.where)
    for name, path in (("COCO results", args.json), ("table", args.csv)):
        if path:
            print(f"{name}: {path}")
    return tally.finish()


def _check(args):
    check_outputs(args)
    if args.annotations and not args.json:
        raise ValueError("--annotations sets the ids in --json, which is not given")
    if args.csv and args.csv.is_dir():
        raise ValueError(f"--csv {args.csv}: is a folder, not a file")
    if args.every < 1:
        raise ValueError(f"--every {args.every}: must be at least 1")


def _check_objects(args, model):
    """Whether the model finds objects; raises a ValueError for options of objects if it finds none."""
    from keras_maskrcnn.heads.outputs import of_objects

    if of_objects(model.schema):
        return True
    for name in ("json", "annotations", "csv", "cutouts", "score_threshold", "nms_iou", "max_detections", "classes"):
        if getattr(args, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} is about objects, and {args.model} finds none")
    return False


def _number(found):
    """Number of the objects, or of the classes in a map."""
    return len(found["labels"]) if "labels" in found else np.count_nonzero(np.unique(found["semantic"]))


def _labels(names, class_names):
    """Labels of the classes of these names, or None for all."""
    if names is None:
        return None
    unknown = [name for name in names if name not in (class_names or ())]
    if unknown:
        known = ", ".join(class_names or ["no class names"])
        raise ValueError(f"--classes {', '.join(unknown)}: the model has {known}")
    return [class_names.index(name) + 1 for name in names]


def _coco_ids(path, class_names):
    """`CocoIds` of the file, or None without one; prints the classes that it lacks."""
    if path is None:
        return None
    from keras_maskrcnn.cli.coco_ids import CocoIds

    ids = CocoIds(path, class_names)
    absent = [name for name, number in zip(class_names, ids.category_ids, strict=True) if number is None]
    if absent:
        print(f"not in the COCO results, because {path.name} has no such category: {', '.join(absent)}")
    return ids


def _writers(args, class_names, ids, opened):
    """The writer of overlays or None, and all writers in a list; `opened`, an ExitStack, closes them."""
    from keras_maskrcnn.cli import results

    asked = (
        (not args.no_overlays, lambda: results.Overlays(args.output, class_names, args.frames)),
        (args.json, lambda: results.JsonResults(args.json, class_names, ids)),
        (args.csv, lambda: results.CsvRows(args.csv, class_names)),
        (args.ids, lambda: results.IdImages(args.output / "ids")),
        (args.cutouts, lambda: results.CutOuts(args.output / "cutouts")),
    )
    writers = [opened.enter_context(contextlib.closing(make())) for is_asked, make in asked if is_asked]
    return (None if args.no_overlays else writers[0]), writers


def _detector(model, args):
    """The model, or with --tta its detections merged over views."""
    if args.tta is None:
        return model
    from keras_maskrcnn.inference.augmented import TestTimeAugmentation

    return TestTimeAugmentation(model, **_views(args.tta))


def _views(text):
    words = [word.strip() for word in text.split(",")]
    try:
        return {"flip": "flip" in words, "scales": tuple(float(word) for word in words if word != "flip")}
    except ValueError:
        raise ValueError(f"--tta {text}: must be flip, factors of the size, or both, such as flip,0.75,1.25") from None


def _detections(model, images, args, tally):
    """Yields (picture, detections) of every picture that can be processed; `tally` notes the others."""
    waiting, again = collections.deque(), []  # pictures without detections so far
    names = ("score_threshold", "nms_iou", "max_detections", "overlap")
    options = {"batch_size": 1, "masks": "cropped", "tiles": args.tiles and tuple(args.tiles)}
    options |= {name: getattr(args, name) for name in names}

    def read():
        for picture in images:
            waiting.append(picture)
            yield picture.image

    reading = read()
    while True:
        try:
            for found in model.detect_each(itertools.chain(again, reading), **options):
                yield waiting.popleft(), found
            return
        except Exception as error:
            if args.debug or not waiting:
                raise
            # Results come in order: the first picture without one has failed.
            failed = waiting.popleft()
            tally.failed(error, failed.source, failed.frame)
            again = [picture.image for picture in waiting]
