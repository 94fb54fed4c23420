"""The command line: `python -m keras_maskrcnn VERB`, also installed as `keras-maskrcnn`.

A verb is a function that takes the parsed arguments and returns an exit code, and an entry in `_parser`. Whatever fails
is named in one line on stderr with exit code 2; `--debug` shows the traceback. Keras and TensorFlow are imported by the
verbs, so that `--help` is quick.
"""

import argparse
import json
import os
import pathlib
import sys

PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def main(argv=None):
    """Runs one verb.

    Args:
        argv: list of arguments; None takes those of the process.

    Returns:
        int: exit code, 0 if everything worked, 2 if something failed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported, or it comes too late
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except Exception as error:  # the door of the program: a person gets a sentence, not a traceback
        if args.debug:
            raise
        return _fail(error)


def predict(args):
    """Finds objects in pictures: overlays, and the COCO result JSON. A file that fails does not stop the others."""
    from keras_maskrcnn import visualize
    from keras_maskrcnn.data import read_image

    model = _load(args.model)
    files, missing = _pictures(args.inputs)
    failed = len([_fail(f"{path}: no such file or folder, or no picture in it") for path in missing])
    names = _unique_names(files)
    results = []
    for number, (path, name) in enumerate(zip(files, names, strict=True), start=1):
        try:
            image = read_image(path)
            found = model.detect(image, score_threshold=args.score_threshold, max_detections=args.max_detections)
            overlay = visualize.save(args.output / f"{name}.png", image, found, model.class_names)
            results += _results(path, found, model.class_names)
        except Exception as error:
            if args.debug:
                raise
            _fail(error, path)
            failed += 1
            continue
        print(f"[{number}/{len(files)}] {path}: {_counted(len(found['labels']), 'object')} -> {overlay}", flush=True)
    if args.json:
        _write_json(args.json, results)
        print(f"COCO results: {args.json}")
    print(f"{_counted(len(files) + len(missing) - failed, 'picture')} done, {failed} failed")
    return 2 if failed else 0


def evaluate(args):
    """Prints the COCO figures of a model on a data set."""
    from keras_maskrcnn import evaluation

    dataset = _dataset(args)
    model = _load(args.model)
    common = {"max_detections": args.max_detections, "batch_size": args.batch_size, "limit": args.limit}
    scores = evaluation.coco_scores(model, dataset, progress=sys.stderr.isatty(), **common)
    print(evaluation.format_scores(scores))
    if args.report:
        report = evaluation.precision_recall(model, dataset, score_threshold=args.score_threshold, **common)
        print(f"\nat IoU 0.5 of masks and score {args.score_threshold}:\n{evaluation.format_report(report)}")
        scores["report"] = {**report, "confusion": report["confusion"].tolist()}
    if args.json:
        _write_json(args.json, _without_nan(scores))
    return 0


def export(args):
    """Writes a SavedModel that serves without this package."""
    model = _load(args.model)
    model.export(str(args.output))
    print(f"SavedModel: {args.output}")
    print(f"try it: python -m keras_maskrcnn predict --model {args.output} PICTURE --output predictions")
    return 0


def info(args):
    """Prints versions and devices, and the number of parameters of a model."""
    import importlib.metadata
    import platform

    import keras

    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    rows = [("python", platform.python_version())]
    rows += [(package, version(package)) for package in ("keras-maskrcnn", "keras", "tensorflow", "jax", "numpy")]
    rows += [("backend", keras.backend.backend()), ("devices", ", ".join(keras.distribution.list_devices()))]
    if args.model or args.preset:
        rows += _parameter_rows(args)
    width = max(len(label) for label, _ in rows)
    print("\n".join(f"{label:<{width}}  {value}" for label, value in rows))
    return 0


def _parameter_rows(args):
    from keras_maskrcnn import MaskRCNN
    from keras_maskrcnn.models.parameters import count_parameters

    if args.model:
        model, name = _load(args.model), str(args.model)
    else:
        if args.num_classes is None:
            raise ValueError("--preset needs --num-classes")
        model, name = MaskRCNN.from_preset(args.preset, num_classes=args.num_classes), args.preset
    if not hasattr(model, "count_params"):
        raise ValueError(f"{name}: parameters are counted in a .keras file, not in a SavedModel")
    counts = count_parameters(model)
    labels = {
        "total": "parameters",
        "trainable": "  of which train now",
        "without_backbone_norm": "without the backbone's batch-norm scales and offsets",
        "trainable_frozen_stem": "  of which train with stem and first stage frozen",
    }
    return [("model", name), *((label, f"{counts[key]:,}") for key, label in labels.items())]


def _load(path):
    """The model in a `.keras` file, or a SavedModel folder behind the same `detect`."""
    import keras

    import keras_maskrcnn.models  # its classes must be known before Keras reads a file that names them
    from keras_maskrcnn.data import DataError
    from keras_maskrcnn.saved_model import SavedModel

    if not path.exists():
        raise DataError(path, "no such model")
    if path.is_dir():
        return SavedModel(path)
    model = keras.saving.load_model(path, compile=False)
    if not isinstance(model, keras_maskrcnn.MaskRCNN):
        raise DataError(path, f"holds a {type(model).__name__}, not a model of this package")
    return model


def _dataset(args):
    from keras_maskrcnn import data

    if args.dataset == "shapes":
        return data.Shapes(args.count, image_size=(args.image_size, args.image_size), seed=args.seed)
    if args.data is None:
        raise ValueError(f"--dataset {args.dataset} needs --data")
    if args.dataset == "penn_fudan":
        return data.PennFudan(args.data, split=args.split or "val")
    if args.annotations:
        return data.Coco(args.annotations, args.data)
    return data.Coco.from_folder(args.data, args.split or "val2017")


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


def _unique_names(files):
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


def _write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _without_nan(value):
    """NaN is no JSON: a figure that does not exist is written as null."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    return None if isinstance(value, float) and value != value else value


def _counted(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _fail(error, path=None):
    """Writes one line on stderr, with the path unless the message names it. Returns the exit code of a failure."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Exception) and not isinstance(error, (ValueError, OSError)):
        message = f"{type(error).__name__}: {message}"
    if path is not None and str(path) not in message:
        message = f"{path}: {message}"
    print(f"error: {message}", file=sys.stderr)
    return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-maskrcnn",
        description="Instance segmentation with Mask R-CNN in Keras.",
        epilog="Training is done by the recipes in train/. Each verb explains itself: keras-maskrcnn VERB --help",
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    verb = _verb(verbs, predict, "predict --model runs/demo/model.keras photos --output predictions --json found.json")
    verb.add_argument("inputs", nargs="+", type=pathlib.Path, metavar="INPUT", help="pictures and folders of pictures")
    _model_argument(verb)
    verb.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder for the overlays (PNG)")
    verb.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write COCO results, masks as run lengths")
    verb.add_argument("--score-threshold", type=float, default=0.5, metavar="S", help="least score (default 0.5)")
    verb.add_argument("--max-detections", type=int, metavar="N", help="most objects a picture (default: the model's)")

    verb = _verb(verbs, evaluate, "evaluate --model runs/penn/model.keras --dataset penn_fudan --data PennFudanPed")
    _model_argument(verb)
    verb.add_argument("--dataset", required=True, choices=("penn_fudan", "coco", "shapes"))
    verb.add_argument("--data", type=pathlib.Path, metavar="PATH", help="folder of the data (of images for coco)")
    verb.add_argument("--split", help='which part (default "val" for penn_fudan, "val2017" for coco)')
    verb.add_argument(
        "--annotations", type=pathlib.Path, metavar="FILE", help="COCO file; --data then holds the images"
    )
    verb.add_argument("--count", type=int, default=200, help="how many shapes pictures (200)")
    verb.add_argument("--image-size", type=int, default=128, help="side of the shapes pictures (128)")
    verb.add_argument("--seed", type=int, default=1, help="seed of the shapes pictures (1)")
    verb.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    verb.add_argument("--batch-size", type=int, default=8, metavar="N", help="images at a time (8)")
    verb.add_argument("--max-detections", type=int, default=100, metavar="N", help="most objects a picture (100)")
    verb.add_argument("--report", action="store_true", help="also precision, recall and confusion by class")
    verb.add_argument("--score-threshold", type=float, default=0.5, metavar="S", help="least score in --report (0.5)")
    verb.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures too")

    verb = _verb(verbs, export, "export --model runs/penn/model.keras --output saved_models/penn")
    _model_argument(verb)
    verb.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder of the SavedModel")

    verb = _verb(verbs, info, "info --preset mask_rcnn_resnet50_fpn --num-classes 22")
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--model", type=pathlib.Path, metavar="FILE", help="count the parameters of a .keras file")
    which.add_argument("--preset", metavar="NAME", help="count the parameters of a preset")
    verb.add_argument("--num-classes", type=int, metavar="K", help="classes of the preset, without background")
    return parser


def _verb(verbs, run, example):
    """Adds the verb that `run` carries out; its docstring is the help."""
    parser = verbs.add_parser(
        run.__name__,
        help=run.__doc__,
        description=run.__doc__,
        epilog=f"example:\n  python -m keras_maskrcnn {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def _model_argument(parser):
    parser.add_argument("--model", required=True, type=pathlib.Path, help="a .keras file or the folder of a SavedModel")
