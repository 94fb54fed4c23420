"""`predict`: images to overlays and COCO results."""

import collections
import itertools
import pathlib

from keras_maskrcnn.cli.common import counted, fail, load, model_argument, write_json

EXAMPLE = "--model runs/demo/model.keras photos --output predictions --json found.json"
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("inputs", nargs="+", type=pathlib.Path, metavar="INPUT", help="images and folders of images")
    model_argument(parser)
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder for the overlays (PNG)")
    add("--json", type=pathlib.Path, metavar="FILE", help="also write COCO results, masks as run lengths")
    add("--score-threshold", type=float, metavar="S", help="minimum score (default: the model's option, or 0.5)")
    add("--max-detections", type=int, metavar="N", help="maximum number of objects per image (default: the model's)")


def run(args):
    """Detects objects in images and writes overlays and COCO results. A file that fails does not stop the others."""
    from keras_maskrcnn import visualize

    model = load(args.model)
    files, missing = _image_files(args.inputs)
    for path in missing:
        fail(f"{path}: no such file or folder, or no image in it")
    names, results, done = unique_names(files), [], 0
    for number, image, found in _detections(model, files, args):
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
    print(f"{counted(done, 'image')} done, {failed} failed")
    return 2 if failed else 0


def _detections(model, files, args):
    """Yields (position, image, detections) of every file that can be processed; prints an error for the others."""
    read, again = collections.deque(), []  # images without detections so far
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
            # Results come in order: the first image without one has failed.
            fail(error, files[read.popleft()[0]])
            again = [image for _, image in read]


def _readable(files, read, debug):
    """Yields the images that can be read and appends (position, image) to `read`; prints an error for the others."""
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


def _image_files(inputs):
    """Files to read, in the order of the inputs and sorted within folders; and the inputs without any."""
    files, missing = [], []
    for path in inputs:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        inside = [p for p in inside if p.exists()]
        files += inside
        if not inside:
            missing.append(path)
    return files, missing


def unique_names(files):
    """Names of the overlays: the stems of the files, with a number where an earlier file has the same."""
    names = []
    for path in files:
        name, number = path.stem, 1
        while name in names:
            number += 1
            name = f"{path.stem}_{number}"
        names.append(name)
    return names


def _results(path, found, class_names):
    """COCO results; the image id is the stem of the file, as an integer where it is one, as in COCO."""
    from keras_maskrcnn.evaluation import coco_results

    results = coco_results([found], [int(path.stem) if path.stem.isdecimal() else path.stem])
    for result in results:
        result["file_name"] = path.name
        if class_names:
            result["category_name"] = class_names[result["category_id"] - 1]
    return results
