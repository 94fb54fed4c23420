"""`evaluate`: COCO figures of a model on a data set."""

import pathlib
import sys

import numpy as np

from keras_maskrcnn.cli.common import load, model_argument, write_json

EXAMPLE = "--model runs/penn/model.keras --dataset penn_fudan --data PennFudanPed"


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    model_argument(parser)
    add("--dataset", required=True, choices=("penn_fudan", "coco", "shapes"))
    add("--data", type=pathlib.Path, metavar="PATH", help="folder of the data (of images for coco)")
    add("--split", help='which part (default "val" for penn_fudan, "val2017" for coco)')
    add("--annotations", type=pathlib.Path, metavar="FILE", help="COCO file; --data then holds the images")
    add("--count", type=int, default=200, help="how many shapes pictures (200)")
    add("--image-size", type=int, default=128, help="side of the shapes pictures (128)")
    add("--seed", type=int, default=1, help="seed of the shapes pictures (1)")
    add("--limit", type=int, metavar="N", help="only the first N images")
    add("--batch-size", type=int, default=8, metavar="N", help="images at a time (8)")
    add("--max-detections", type=int, default=100, metavar="N", help="most objects a picture (100)")
    add("--report", action="store_true", help="also precision, recall and confusion by class")
    add("--score-threshold", type=float, default=0.5, metavar="S", help="least score in --report (0.5)")
    add("--json", type=pathlib.Path, metavar="FILE", help="write the figures too")


def run(args):
    """Prints the COCO figures of a model on a data set."""
    from keras_maskrcnn import evaluation

    dataset = _dataset(args)
    model = _numbered_alike(load(args.model), dataset.class_names)
    common = {"max_detections": args.max_detections, "batch_size": args.batch_size, "limit": args.limit}
    scores = evaluation.coco_scores(model, dataset, progress=sys.stderr.isatty(), **common)
    print(evaluation.format_scores(scores))
    if args.report:
        report = evaluation.precision_recall(model, dataset, score_threshold=args.score_threshold, **common)
        print(f"\nat IoU 0.5 of masks and score {args.score_threshold}:\n{evaluation.format_report(report)}")
        scores["report"] = {**report, "confusion": report["confusion"].tolist()}
    if args.json:
        write_json(args.json, _without_nan(scores))
    return 0


def _numbered_alike(model, class_names):
    """The model, its classes renumbered where it knows those of the data set under other numbers.

    torchvision's COCO weights have 90 classes, COCO's annotations 80.
    """
    known = model.class_names or []
    if known == list(class_names) or not set(class_names) <= set(known):
        return model
    print(f"classes matched by name: {len(class_names)} of the model's {len(known)}")
    return _Renumbered(model, class_names)


class _Renumbered:
    """A model's answers in a data set's numbers; classes that the data set does not have are left out."""

    def __init__(self, model, class_names):
        self.model, self.class_names, self.num_classes = model, list(class_names), len(class_names)
        numbers = {name: number for number, name in enumerate(class_names, start=1)}
        self.numbers = np.array([0, *(numbers.get(name, 0) for name in model.class_names)], "int32")

    def detect_each(self, images, **options):
        """As `MaskRCNN.detect_each`: one dict an image."""
        for found in self.model.detect_each(images, **options):
            labels = self.numbers[found["labels"]]
            yield {**{key: values[labels > 0] for key, values in found.items()}, "labels": labels[labels > 0]}


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


def _without_nan(value):
    """NaN is no JSON: a figure that does not exist is written as null."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    return None if isinstance(value, float) and value != value else value
