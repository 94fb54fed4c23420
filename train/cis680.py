"""The CIS 680 assignment "Instance Segmentation with Mask R-CNN": all eighteen steps, as an HTML report.

    python train/cis680.py all --output runs/cis680                       # on generated shapes
    python train/cis680.py all --data FOLDER --output runs/cis680         # on the course's four files, or on COCO
    python train/cis680.py part-b --data FOLDER --output runs/cis680 --photo mine.jpg

FOLDER holds the course's `hw3_mycocodata_{img,mask}_comp_zlib.h5` and `hw3_mycocodata_{labels,bboxes}_comp_zlib.npy`,
or `annotations/` and images in COCO's layout. OUTPUT/report.html contains every plot, number and answer that the
assignment requires, OUTPUT/summary.json the numbers; the trained models are in OUTPUT too.
"""

import argparse
import importlib.metadata
import json
import pathlib
import shlex
import sys
import time

import keras_maskrcnn.quiet  # noqa: F401  before TensorFlow
from cis680_report import page, part_a, part_b, setup
from keras_maskrcnn.training import recipe

TITLE = "Instance Segmentation with Mask R-CNN"


def run(arguments):
    """Runs one part or both, and writes the report and the summary."""
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    work = setup.make(arguments)
    print(work.source)
    report = page.Report(TITLE, work.source, setup=work, run=arguments)
    started = time.perf_counter()
    summary = {"command": shlex.join(["python", *sys.argv]), "data": work.source, "part": arguments.part}
    for name, part in (("part-a", part_a), ("part-b", part_b)):
        if arguments.part in (name, "all"):
            summary[name] = part.run(report, work)
    summary["seconds"] = round(time.perf_counter() - started, 1)
    summary["versions"] = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")}
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"report   {report.write(output / 'report.html')}\nfigures  {output / 'summary.json'}")


def parse(arguments=None):
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "part",
        choices=("part-a", "part-b", "all"),
        help="backbone and RPN from scratch; the full network; both",
    )
    add("--output", type=pathlib.Path, required=True, help="folder of the report, created if missing")
    add(
        "--data",
        type=pathlib.Path,
        help="folder of the course's files, or in COCO's layout (default: generated shapes)",
    )
    add("--dataset", choices=("auto", "cis680", "shapes", "coco"), help="format of the data (default: by its files)")
    add("--train-images", type=recipe.positive, help="number of shape images for training (default: %(default)s)")
    add("--test-images", type=recipe.positive, help="number of shape images for testing (default: %(default)s)")
    add("--photo", type=pathlib.Path, help="an image of your own for step 18")
    add("--steps-a", type=recipe.positive, help="training steps of part A (default: %(default)s)")
    add("--steps-b", type=recipe.positive, help="joint training steps of part B (default: %(default)s)")
    add("--alternating-steps", type=recipe.positive, help="steps of all four phases (default: %(default)s)")
    add("--transfer-steps", type=recipe.positive, help="steps of each network of step 8 (default: %(default)s)")
    add(
        "--minutes",
        type=recipe.above_zero,
        help="length of all trainings together, shared out by these steps; the report takes time on top",
    )
    add("--batch-size", type=recipe.positive, help="images per step (default: %(default)s)")
    add(
        "--image-size",
        type=recipe.positive,
        nargs="+",
        help="height and width of part B's canvas (default: %(default)s)",
    )
    add("--learning-rate", type=recipe.above_zero, help="peak of the schedule (default: %(default)s)")
    add("--backbone", help="of part B: resnet18 to resnet101 (default: %(default)s)")
    add("--width", type=recipe.positive, help="channels of its stem, 64 in the papers (default: %(default)s)")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), help="auto: bfloat16 if the machine supports it")
    add("--workers", type=recipe.positive, help="threads that prepare images (default: %(default)s)")
    add("--seed", type=int, help="random seed (default: %(default)s)")
    add("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(
        dataset="auto",
        train_images=2000,
        test_images=100,
        steps_a=130,
        steps_b=1200,
        alternating_steps=1200,
        transfer_steps=40,
        batch_size=8,
        image_size=[160, 224],
        learning_rate=1e-3,
        backbone="resnet18",
        width=32,
        precision="auto",
        workers=2,
        pipeline="threads",
        seed=0,
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    recipe.main(run, parse())
