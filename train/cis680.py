"""The CIS 680 assignment "Instance Segmentation with Mask R-CNN", all eighteen steps, as a report to read.

    python train/cis680.py all --output runs/cis680                       # on shapes that are drawn on the spot
    python train/cis680.py all --data FOLDER --output runs/cis680         # on the course's four files, or on COCO
    python train/cis680.py part-b --data FOLDER --output runs/cis680 --photo mine.jpg

FOLDER holds the course's `hw3_mycocodata_{img,mask}_comp_zlib.h5` and `hw3_mycocodata_{labels,bboxes}_comp_zlib.npy`,
or `annotations/` and pictures in COCO's layout. OUTPUT/report.html has every plot, number and answer that the
assignment asks for; OUTPUT/summary.json has the numbers, and the trained models lie beside it.
"""

import argparse
import importlib.metadata
import json
import pathlib
import shlex
import sys
import time

from cis680_report import page, part_a, part_b, setup
from keras_maskrcnn.training import recipe

TITLE = "Instance Segmentation with Mask R-CNN"


def run(arguments):
    """Both parts, or one of them, into a report and a summary."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    work = setup.make(arguments)
    print(work.source)
    report = page.Page(TITLE)
    report.text(work.source)
    started = time.perf_counter()
    summary = {"command": shlex.join(["python", *sys.argv]), "data": work.source, "part": arguments.part}
    for name, part in (("part-a", part_a), ("part-b", part_b)):
        if arguments.part in (name, "all"):
            summary[name] = part.run(report, work)
    summary["seconds"] = round(time.perf_counter() - started, 1)
    summary["versions"] = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")}
    (arguments.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"report   {report.write(arguments.output / 'report.html')}\nfigures  {arguments.output / 'summary.json'}")


def parse(arguments=None):
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "part",
        choices=("part-a", "part-b", "all"),
        help="the backbone and the RPN from scratch; the full network; both",
    )
    add("--output", type=pathlib.Path, required=True, help="folder of the report, made if missing")
    add("--data", type=pathlib.Path, help="folder of the course's files, or in COCO's layout; without it, shapes")
    add("--dataset", choices=("auto", "cis680", "shapes", "coco"), help="what is in it (default: what the files say)")
    add("--train-images", type=recipe.positive, help="pictures to train on, of shapes (default: %(default)s)")
    add("--test-images", type=recipe.positive, help="pictures to test on, of shapes (default: %(default)s)")
    add("--photo", type=pathlib.Path, help="a picture of your own for step 18")
    add("--steps-a", type=recipe.positive, help="training steps of part A (default: %(default)s)")
    add("--steps-b", type=recipe.positive, help="joint training steps of part B (default: %(default)s)")
    add("--alternating-steps", type=recipe.positive, help="steps of all four phases (default: %(default)s)")
    add("--transfer-steps", type=recipe.positive, help="steps of each arm of step 8 (default: %(default)s)")
    add("--batch-size", type=recipe.positive, help="images a step (default: %(default)s)")
    add(
        "--image-size",
        type=recipe.positive,
        nargs="+",
        help="height and width of part B's canvas (default: %(default)s)",
    )
    add("--learning-rate", type=float, help="peak of the schedule (default: %(default)s)")
    add("--backbone", help="of part B: resnet18 to resnet101 (default: %(default)s)")
    add("--width", type=recipe.positive, help="channels of its stem, 64 in the papers (default: %(default)s)")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), help="auto: bfloat16 where the machine has it")
    add("--workers", type=recipe.positive, help="threads that prepare pictures (default: %(default)s)")
    add("--seed", type=int, help="seed of everything random (default: %(default)s)")
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
        seed=0,
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    recipe.main(run, parse())
