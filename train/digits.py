"""Train an FCN and Mask R-CNN from scratch on the same images of handwritten digits, and write a page on the way there.

    python train/digits.py --output runs/digits
    python train/digits.py --output runs/digits --minutes 20 --digits train-images-idx3-ubyte.gz
    python train/digits.py --output runs/digits_fcn --only fcn --minutes 4

The images are composed from scikit-learn's digits or from files of MNIST, see `data.Digits`: white digits on black with
noise, as in MNIST, or colours. The digits of the validation images are in no training image. The default length is 10
minutes for both trainings together. Then OUTPUT/report.html shows four steps: a classifier as a convolutional network,
up-sampling, the loss of pixels, and stochastic gradient descent; its small trainings take time on top. OUTPUT/fcn and
OUTPUT/mask_rcnn hold the two runs, as other recipes write them, and OUTPUT/summary.json has all figures. A run that was
stopped continues.

Scores with these defaults on 200 other images, 27 November 2026, two Intel Xeon cores with AMX, shared with tests:

    FCN: mean IoU 0.932; Mask R-CNN: segm AP 0.940, bbox AP 0.907
"""

from keras_maskrcnn.training import recipe  # isort: skip

import argparse
import importlib.metadata
import json
import pathlib
import shlex
import sys
import time

import keras

from cis680_report.page import Report
from digits_report import classifier, loss, networks, results, straight_line, upsampling
from digits_report.results import REPORT
from keras_maskrcnn.training.run_folder import RunFolder

TITLE = "Handwritten digits: from a classifier to a fully convolutional network and Mask R-CNN"
MINUTES = 10.0
# Images of a run by the clock, whose number of steps is unknown. They are drawn when needed, and repeat afterwards.
BY_THE_CLOCK = 1_000_000
# Share of the minutes of each network, its function in `networks`, and the side of the masks in its batches.
NETWORKS = {"fcn": (0.5, networks.fcn, None), "mask_rcnn": (0.5, networks.mask_rcnn, 56)}


def run(arguments):
    """Trains both networks or continues with them, then writes the page."""
    if (arguments.find_lr or arguments.overfit) and not arguments.only:
        raise ValueError(f"--find-lr and --overfit are for one network: give --only {' or --only '.join(NETWORKS)}")
    recipe.begin(arguments)
    count = BY_THE_CLOCK if arguments.minutes else arguments.steps * arguments.batch_size
    train = networks.digits(arguments, count, "train", seed=1)
    val = networks.digits(arguments, arguments.val_images, "val", seed=2)
    whole = argparse.Namespace(**vars(arguments))
    work, summaries = networks.Work(train, val, whole, whole.output), {}
    for name in [whole.only] if whole.only else NETWORKS:
        # In the arguments of the program, so that after an interruption it says which run continues.
        arguments.output = whole.output / name
        arguments.minutes = whole.minutes and whole.minutes * (1 if whole.only else NETWORKS[name][0])
        summaries[name] = part(name, arguments, work)
    if not whole.only:
        write(work, summaries)


def part(name, arguments, work):
    """Trains a network in its folder, unless it is there already; returns its summary."""
    folder = RunFolder.of(arguments)
    if folder.finished and not (arguments.overwrite or arguments.find_lr):
        folder.check()
        print(f"{folder.path} holds a finished run")
        return json.loads((folder.path / "summary.json").read_text())
    recipe.begin(arguments)
    _, build, mask_size = NETWORKS[name]
    batches = recipe.batches(arguments, work.train, mask_size, max_instances=8, shuffle=False)
    model = build(arguments, work.train.num_classes)
    model.compile(recipe.optimizer(arguments))
    return recipe.train(arguments, model, work.train, work.val, batches, max_detections=20)


def write(work, summaries):
    """Writes the page, its pictures and the summary of both runs."""
    start, folder = time.perf_counter(), work.output / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    models = {name: keras.saving.load_model(summaries[name]["keras_file"]) for name in NETWORKS}
    report = Report(TITLE, results.introduction(work), REPORT)
    figures = {"classifier": classifier.fill(report, work, folder)}
    figures["upsampling"] = upsampling.fill(report, work, folder, models["fcn"])
    figures["loss"] = loss.fill(report, work, folder, models["fcn"], figures["upsampling"]["bilinear"])
    figures["straight_line"] = straight_line.fill(report, folder)
    results.fill(report, work, folder, models, summaries)
    page = report.write(work.output / "report.html")
    run = RunFolder.of(work.arguments)
    summary = {
        "command": shlex.join(["python", *sys.argv]),
        "arguments": run.arguments,
        "mean_IoU": summaries["fcn"]["mean_IoU"],
        "bbox_AP": summaries["mask_rcnn"]["bbox_AP"],
        "segm_AP": summaries["mask_rcnn"]["segm_AP"],
        "fit_seconds": round(sum(found["fit_seconds"] for found in summaries.values()), 1),
        "page_seconds": round(time.perf_counter() - start, 1),
        **figures,
        **summaries,
        "versions": {name: importlib.metadata.version(name) for name in ("keras", keras.config.backend(), "numpy")},
        "report": str(page),
        "pictures": str(folder),
    }
    run.finish(summary)
    print(
        f"\nFCN mean IoU {summary['mean_IoU']:.3f}, Mask R-CNN segm AP {summary['segm_AP']:.3f}, "
        f"{summary['fit_seconds']:.0f} s of training with scoring, {summary['page_seconds']:.0f} s for the page"
        f"\nreport       {page}\nfigures      {work.output / 'summary.json'}"
    )


def parse(arguments=None):
    """Arguments of the command line."""
    parser = recipe.parser(__doc__, epochs=4, batch_size=8, image_size=128, learning_rate=1e-3, width=32)
    add = parser.add_argument
    add("--digits", type=pathlib.Path, help="IDX file of images, with its labels beside it (default: scikit-learn's)")
    add("--colour", action="store_true", help="random colours, which need longer trainings, instead of white on black")
    add("--only", choices=NETWORKS, help="train one network, in all of the time, and write no page")
    add("--val-images", type=recipe.positive, default=200, help="number of validation images (default: %(default)s)")
    add(
        "--page-steps",
        type=recipe.positive,
        default=100,
        help="steps of each of the page's eight small networks (default: %(default)s)",
    )
    add(
        "--classifier-images",
        type=recipe.positive,
        default=1500,
        help="training images of the page's classifier (default: %(default)s)",
    )
    parser.set_defaults(steps=None, minutes=None)
    found = parser.parse_args(arguments)
    if not found.steps and not found.minutes:
        found.minutes = MINUTES
    return found


if __name__ == "__main__":
    recipe.main(run, parse())
