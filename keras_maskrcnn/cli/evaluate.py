"""`evaluate`: COCO scores of a model on a data set."""

import pathlib
import sys

import numpy as np

from keras_maskrcnn.cli.common import check_outputs, load, model_argument, write_json

EXAMPLE = "--model runs/penn/model.keras --dataset penn_fudan --data PennFudanPed"


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    model_argument(parser)
    add("--dataset", required=True, choices=("penn_fudan", "coco", "shapes"))
    add("--data", type=pathlib.Path, metavar="PATH", help="folder of the data set")
    add("--split", help='part of the data set (default: "val" for penn_fudan, "val2017" for coco)')
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
    add("--report", action="store_true", help="also print precision, recall and confusion by class")
    add(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="minimum score in --report (default: %(default)s)",
    )
    add("--json", type=pathlib.Path, metavar="FILE", help="also write the scores to a JSON file")


def run(args):
    """Prints the COCO scores of a model on a data set."""
    from keras_maskrcnn import evaluation

    check_outputs(args)
    dataset = _dataset(args)
    model = _with_labels_of(load(args.model), dataset.class_names)
    common = {"max_detections": args.max_detections, "batch_size": args.batch_size, "limit": args.limit}
    scores = evaluation.coco_scores(model, dataset, progress=sys.stderr.isatty(), **common)
    print(evaluation.format_scores(scores))
    if args.report:
        kind = "segm" if "segm_AP" in scores else "bbox"
        report = evaluation.precision_recall(model, dataset, 0.5, args.score_threshold, kind, **common)
        overlap = {"segm": "masks", "bbox": "boxes"}[kind]
        print(f"\nat IoU 0.5 of {overlap} and score {args.score_threshold}:\n{evaluation.format_report(report)}")
        scores["report"] = report
    if args.json:
        write_json(args.json, scores)
    return 0


def _with_labels_of(model, class_names):
    """The model, with the labels of the data set if its classes include all of the data set's in another order.

    torchvision's COCO weights have 90 classes, COCO's annotations 80.
    """
    known = model.class_names or []
    if known == list(class_names) or not set(class_names) <= set(known):
        return model
    print(f"classes matched by name: {len(class_names)} of the model's {len(known)}")
    return _Renumbered(model, class_names)


class _Renumbered:
    """A model's detections with the labels of a data set; classes that are not in the data set are removed."""

    def __init__(self, model, class_names):
        self.model, self.class_names, self.num_classes = model, list(class_names), len(class_names)
        self.schema = getattr(model, "schema", None)
        numbers = {name: number for number, name in enumerate(class_names, start=1)}
        self.numbers = np.array([0, *(numbers.get(name, 0) for name in model.class_names)], "int32")

    def detect_each(self, images, **options):
        """As `Detector.detect_each`."""
        for found in self.model.detect_each(images, **options):
            found["labels"] = self.numbers[found["labels"]]
            yield found.rows(found["labels"] > 0)


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
