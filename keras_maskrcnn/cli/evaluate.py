"""`evaluate`: scores of a model on a data set, and a report of its errors."""

import pathlib
import sys

from keras_maskrcnn.cli.common import check_outputs, load, model_argument, write_json
from keras_maskrcnn.data.urls import as_path

EXAMPLE = "--model runs/balloon/model.keras --data balloon"


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    model_argument(parser)
    add(
        "--dataset",
        default="any",
        choices=("any", "penn_fudan", "nuclei", "coco", "shapes"),
        help="any: COCO, VIA, LabelMe, YOLO, Pascal VOC, …, whichever --data is (default: %(default)s)",
    )
    add("--data", type=as_path, metavar="PATH", help="file or folder of the data set")
    add("--split", help='part of the data set (default: validation; "val2017" for coco)')
    add("--annotations", type=pathlib.Path, metavar="FILE", help="COCO JSON file of the images in --data")
    add("--count", type=int, default=200, help="number of shapes images (default: %(default)s)")
    add("--image-size", type=int, default=128, help="side of the shapes images in pixels (default: %(default)s)")
    add("--seed", type=int, default=1, help="seed of the shapes images (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="evaluate the first N images only")
    add("--batch-size", type=int, default=8, metavar="N", help="images per batch (default: %(default)s)")
    add(
        "--max-detections",
        type=int,
        default=100,
        metavar="N",
        help="maximum number of objects per image (default: %(default)s)",
    )
    add(
        "--report",
        action="store_true",
        help="also print precision, recall, F1, confusion, error types, sizes and calibration",
    )
    add(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="minimum score where --report and --html count detections (default: %(default)s)",
    )
    add("--strict", action="store_true", help="stop at bad input; by default it is left out, counted and listed")
    add("--boundary", action="store_true", help="also compute boundary AP (Cheng et al. 2021)")
    add("--panoptic", action="store_true", help="also compute panoptic quality, for data with maps of stuff")
    add(
        "--stuff-area",
        type=int,
        default=4096,
        metavar="N",
        help="pixels below which --panoptic leaves out a predicted region of stuff (default: %(default)s, for photos)",
    )
    add("--html", type=pathlib.Path, metavar="FILE", help="also write a page with plots, tables and the worst images")
    add("--worst", type=int, default=20, metavar="N", help="images with errors in --html (default: %(default)s)")
    add("--json", type=pathlib.Path, metavar="FILE", help="also write all figures to a JSON file")


def run(args):
    """Prints the scores of a model on a data set, and what it does wrong; writes a report with pictures."""
    from keras_maskrcnn import data, evaluation

    check_outputs(args)
    dataset = data.Strict(_dataset(args)) if args.strict else _dataset(args)
    model = load(args.model)
    dataset = dataset.decoded(model.image_type.channels, model.image_type.dtype)
    if not evaluation.finds_objects(model):
        return _of_maps(model, dataset, args)
    figures = evaluation.explain(
        model,
        dataset,
        score_threshold=args.score_threshold,
        boundary=args.boundary,
        html=args.html,
        worst=args.worst,
        max_detections=args.max_detections,
        batch_size=args.batch_size,
        limit=args.limit,
        progress=sys.stderr.isatty(),
    )
    print(evaluation.format_scores(figures))
    if args.report:
        overlap = {"segm": "masks", "bbox": "boxes"}[figures["kind"]]
        print(f"\nat IoU 0.5 of {overlap} and score {args.score_threshold}:")
        print(f"{evaluation.format_report(figures['report'])}\n\n{evaluation.format_explanation(figures)}")
    if args.panoptic:
        figures["panoptic"] = _panoptic(model, dataset, args)
    if args.html:
        print(f"report: {args.html}")
    if args.json:
        write_json(args.json, figures)
    data.print_left_out(dataset)
    return 0


def _panoptic(model, dataset, args):
    """Prints and returns the panoptic quality."""
    from keras_maskrcnn import evaluation

    names = ("score_threshold", "stuff_area", "batch_size", "limit")
    options = {name: getattr(args, name) for name in names}
    figures = evaluation.panoptic_quality(model, dataset, progress=sys.stderr.isatty(), **options)
    print(f"\n{evaluation.format_scores(figures)}")
    return figures


def _of_maps(model, dataset, args):
    """`run` for a model that finds no objects."""
    from keras_maskrcnn import data, evaluation

    for option in ("report", "boundary", "panoptic", "html"):
        if getattr(args, option):
            raise ValueError(f"--{option} is about objects, and {args.model} finds none")
    options = {"batch_size": args.batch_size, "limit": args.limit, "progress": sys.stderr.isatty()}
    figures = evaluation.semantic_scores(model, dataset, **options)
    print(evaluation.format_scores(figures))
    if args.json:
        write_json(args.json, figures)
    data.print_left_out(dataset)
    return 0


def _dataset(args):
    from keras_maskrcnn import data

    if args.dataset == "shapes":
        return data.Shapes(args.count, image_size=(args.image_size, args.image_size), seed=args.seed)
    if args.data is None:
        raise ValueError(f"--dataset {args.dataset} needs --data")
    if args.dataset == "any" and not args.annotations:
        return data.open(args.data, args.split) if args.split else data.splits(args.data)[1]
    if args.dataset in ("penn_fudan", "nuclei"):
        reader = data.PennFudan if args.dataset == "penn_fudan" else data.Nuclei
        return reader(args.data, split=args.split or "val")
    if args.annotations:
        return data.Coco(args.annotations, args.data)
    return data.Coco.from_folder(args.data, args.split or "val2017")
