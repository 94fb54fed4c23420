"""`predict`: images to overlays and COCO results."""

import collections
import itertools
import pathlib
import typing

from keras_maskrcnn.cli.common import check_outputs, counted, fail, load, model_argument, write_json

EXAMPLE = "--model runs/demo/model.keras photos --output predictions --json found.json"
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("inputs", nargs="+", type=pathlib.Path, metavar="INPUT", help="images and folders of images")
    model_argument(parser)
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder for the overlays (PNG)")
    add("--json", type=pathlib.Path, metavar="FILE", help="also write COCO results, masks as run lengths")
    add("--annotations", type=pathlib.Path, metavar="FILE", help="COCO file with the image and category ids for --json")
    add("--score-threshold", type=float, metavar="S", help="minimum score (default: the model's option, or 0.5)")
    add("--max-detections", type=int, metavar="N", help="maximum number of objects per image (default: the model's)")


class Item(typing.NamedTuple):
    """An image to process.

    Attributes:
        path: the file.
        name: of the overlay, without suffix.
        image_id: in the COCO results.
        size: (height, width) that a COCO file has for the image, or None.
    """

    path: pathlib.Path
    name: str
    image_id: object
    size: tuple | None = None


def run(args):
    """Detects objects in images and writes overlays and COCO results. A file that fails does not stop the others."""
    from keras_maskrcnn import visualize

    check_outputs(args)
    if args.annotations and not args.json:
        raise ValueError("--annotations sets the ids in --json, which is not given")
    model = load(args.model)
    ids = _coco_ids(args.annotations, model.class_names)
    files, missing = _image_files(args.inputs)
    for path in missing:
        read = ", ".join(sorted(SUFFIXES))
        fail(f"no image in it ({read} are read)" if path.is_dir() else "no such file or folder", path)
    items, results, done = _items(files, ids), [], 0
    for number, image, found in _detections(model, items, args):
        item = items[number]
        try:
            overlay = visualize.save(args.output / f"{item.name}.png", image, found, model.class_names)
            results += _results(item, found, model.class_names, ids)
        except Exception as error:
            if args.debug:
                raise
            fail(error, item.path)
            continue
        done += 1
        objects = counted(len(found["labels"]), "object")
        print(f"[{number + 1}/{len(items)}] {item.path}: {objects} -> {overlay}", flush=True)
    if args.json:
        write_json(args.json, results)
        print(f"COCO results: {args.json}")
    failed = len(files) + len(missing) - done
    print(f"{counted(done, 'image')} done, {failed} failed")
    return 2 if failed else 0


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


def _items(files, ids):
    """`Item`s of the files; prints an error for each file that the COCO file does not list once."""
    names = unique_names(files)
    if ids is None:
        return [Item(path, name, name) for path, name in zip(files, names, strict=True)]
    items = {}
    for path, name in zip(files, names, strict=True):
        try:
            record = ids.record(path)
        except ValueError as error:
            fail(error)
            continue
        item = Item(path, name, record["id"], (record["height"], record["width"]))
        if items.setdefault(item.image_id, item) is not item:
            fail(f"has the file name of {items[item.image_id].path} in {ids.path}", path)
    return list(items.values())


def _detections(model, items, args):
    """Yields (position, image, detections) of every item that can be processed; prints an error for the others."""
    read, again = collections.deque(), []  # images without detections so far
    reading = _readable(items, read, model.image_type, args.debug)
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
            fail(error, items[read.popleft()[0]].path)
            again = [image for _, image in read]


def _readable(items, read, image_type, debug):
    """Yields the images that can be read and appends (position, image) to `read`; prints an error for the others."""
    for number, item in enumerate(items):
        try:
            image = _read(item, image_type)
        except Exception as error:
            if debug:
                raise
            fail(error, item.path)
            continue
        read.append((number, image))
        yield image


def _read(item, image_type):
    """The image of a type with its EXIF orientation; with a COCO file, in the orientation that has the size in it."""
    from keras_maskrcnn.data.image_file import read_image, read_stored
    from keras_maskrcnn.data.sample import DataError

    if item.size is None:
        return read_image(item.path, channels=image_type.channels, dtype=image_type.dtype)
    stored = read_stored(item.path, image_type)
    if item.size not in stored.sizes:
        (height, width), *_ = stored.sizes
        listed = f"{item.size[1]} x {item.size[0]} in the COCO file"
        raise DataError(item.path, f"is {width} x {height} pixels, but {listed}")
    return stored.fitted(item.size, item.path.parent)


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


def _results(item, found, class_names, ids):
    """COCO results of an image; detections of classes that the COCO file lacks are removed."""
    from keras_maskrcnn.evaluation import coco_results

    if ids:
        found = found.rows([ids.category_ids[label - 1] is not None for label in found["labels"]])
    results = coco_results([found], [item.image_id], ids and ids.category_ids)
    for result, label in zip(results, found["labels"], strict=True):
        result["file_name"] = str(item.path)
        if class_names:
            result["category_name"] = class_names[label - 1]
    return results
