"""`predict`: pictures to overlays and COCO results."""

import collections
import itertools
import pathlib

from keras_maskrcnn.cli.common import counted, fail, load, model_argument, write_json

EXAMPLE = "--model runs/demo/model.keras photos --output predictions --json found.json"
PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("inputs", nargs="+", type=pathlib.Path, metavar="INPUT", help="pictures and folders of pictures")
    model_argument(parser)
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder for the overlays (PNG)")
    add("--json", type=pathlib.Path, metavar="FILE", help="write COCO results, masks as run lengths")
    add("--score-threshold", type=float, default=0.5, metavar="S", help="least score (default 0.5)")
    add("--max-detections", type=int, metavar="N", help="most objects a picture (default: the model's)")


def run(args):
    """Finds objects in pictures: overlays, and the COCO result JSON. A file that fails does not stop the others."""
    from keras_maskrcnn import visualize

    model = load(args.model)
    files, missing = _pictures(args.inputs)
    for path in missing:
        fail(f"{path}: no such file or folder, or no picture in it")
    names, results, done = unique_names(files), [], 0
    for number, image, found in _searched(model, files, args):
        path = files[number]
        try:
            overlay = visualize.save(args.output / f"{names[number]}.png", image, found, model.class_names)
            results += _results(path, found, model.class_names)
        except Exception as error:
            if args.debug:
                raise
            fail(error, path)
            continue
        done += 1
        objects = counted(len(found["labels"]), "object")
        print(f"[{number + 1}/{len(files)}] {path}: {objects} -> {overlay}", flush=True)
    if args.json:
        write_json(args.json, results)
        print(f"COCO results: {args.json}")
    failed = len(files) + len(missing) - done
    print(f"{counted(done, 'picture')} done, {failed} failed")
    return 2 if failed else 0


def _searched(model, files, args):
    """Yields (position, picture, detections) of every file that can be read and searched; the others are named."""
    read, again = collections.deque(), []  # pictures on their way through the network
    reading = _readable(files, read, args.debug)
    options = {"score_threshold": args.score_threshold, "max_detections": args.max_detections, "batch_size": 1}
    while True:
        try:
            for found in model.detect_each(itertools.chain(again, reading), **options):
                yield *read.popleft(), found
            return
        except Exception as error:
            if args.debug or not read:
                raise
            # Answers come in order: the first picture without one is the one that failed.
            fail(error, files[read.popleft()[0]])
            again = [image for _, image in read]


def _readable(files, read, debug):
    """Pictures of the files that can be read, the others named; (position, picture) of each goes into `read`."""
    from keras_maskrcnn.data import read_image

    for number, path in enumerate(files):
        try:
            image = read_image(path)
        except Exception as error:
            if debug:
                raise
            fail(error, path)
            continue
        read.append((number, image))
        yield image


def _pictures(inputs):
    """Files to read in the order given, folders opened and sorted; and the inputs that yield none."""
    files, missing = [], []
    for path in inputs:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES) if path.is_dir() else [path]
        inside = [p for p in inside if p.exists()]
        files += inside
        if not inside:
            missing.append(path)
    return files, missing


def unique_names(files):
    """Names for the overlays: a file's stem, numbered where another file has the same."""
    names = []
    for path in files:
        name, number = path.stem, 1
        while name in names:
            number += 1
            name = f"{path.stem}_{number}"
        names.append(name)
    return names


def _results(path, found, class_names):
    """COCO results; a file named by a number, as COCO's are, has that number as its id."""
    from keras_maskrcnn.evaluation import coco_results

    results = coco_results([found], [int(path.stem) if path.stem.isdecimal() else path.stem])
    for result in results:
        result["file_name"] = path.name
        if class_names:
            result["category_name"] = class_names[result["category_id"] - 1]
    return results
