r"""Equal training, equal result: this package and torchvision, both from scratch, on cell nuclei.

    python benchmarks/training_quality.py --data nuclei --peer-python PATH --images 4800 --seeds 0 1 2 \
        --output runs/quality

Both sides train the same network (ResNet-18-FPN with group normalisation and half the channels) on the very same crops
in the same order, with the same optimizer, schedule, samplers and initial distributions, and are scored by pycocotools
on the same pictures at their own size. What differs is the code. Each (seed, side) is a process of its own, and one
runs at a time. A run that is finished is not run again, so a killed benchmark goes on when it is started again.

"Seconds" run from the start of the training loop to the end of its last step: reading the crops and (ours) tracing
are in them, scoring is not. A thread that has to wait for a core hurts torch more than TensorFlow, so on a machine that
does other work too give both sides one core (`--cores 1`).

Figures (1,200 crops, seeds 0 1 2, `--cores 1`, float32, one core of an Intel Xeon at 2.5 GHz, other work beside
it, 21 November 2026): segm AP 0.413 ± 0.008 against torchvision's 0.381 ± 0.017, AP50 0.694 against 0.692, in
406 s against 510 s.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import numpy as np
import training_quality_setup as setup

from keras_maskrcnn.data.sample import Wrapper

HERE = pathlib.Path(__file__).parent
SIDES = {"ours": "training_quality_keras.py", "peer": "training_quality_torch.py"}
NAMES = {"ours": "keras_maskrcnn", "peer": "torchvision"}
FIGURES = ("segm_AP", "segm_AP50", "bbox_AP", "bbox_AP50")
MARGIN = 0.01  # AP on the mean by which ours may be below


class Stretched(Wrapper):
    """A reader with the grey values of each image spread to 0…255, because some of these images are almost black."""

    def __len__(self):
        return len(self.dataset)

    def read(self, position):
        """A sample with its image stretched."""
        sample = self.dataset[position]
        return {**sample, "image": stretch(sample["image"])}


def stretch(image, low=1.0, high=99.8):
    """Values between two percentiles spread to 0…255: uint8 to uint8, all channels alike."""
    bottom, top = np.percentile(image, (low, high))
    spread = (image.astype(np.float32) - bottom) * (255 / max(top - bottom, 1))
    return np.clip(np.rint(spread), 0, 255).astype(np.uint8)


def prepare(arguments, val):
    """Folder of the pictures to be scored, written unless it is there."""
    folder = arguments.output / "pictures"
    if len(list(folder.glob("*.npy"))) != len(val):
        setup.write_pictures(Stretched(val), folder)
    return folder


def crops(arguments, seed):
    """Folder of a seed's crops, written unless it is complete."""
    from keras_maskrcnn import data

    folder = arguments.output / f"crops_{seed}"
    if not (folder / "offsets.npy").exists():
        print(f"cutting {arguments.images} crops for seed {seed}", flush=True)
        train = data.Cached(Stretched(data.Nuclei(arguments.data, "train")))
        setup.write_crops(train, folder, arguments.images, seed)
    return folder


def run(arguments, seed, side, pictures, truth):
    """Trains and scores one side with one seed, unless that was done; returns its record."""
    path = arguments.output / f"{side}_{seed}.json"
    if not path.exists():
        work = arguments.output / f"work_{side}_{seed}"
        command = [sys.executable if side == "ours" else arguments.peer_python, str(HERE / SIDES[side])]
        command += ["--crops", crops(arguments, seed), "--pictures", pictures, "--output", work, "--seed", str(seed)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": str(HERE.parent)}
        subprocess.run([*map(str, command), "--precision", arguments.precision[side]], check=True, env=environment)
        record = json.loads(work.with_suffix(".json").read_text())
        record = {"side": NAMES[side], "seed": seed, **score(truth, work.with_suffix(".npz")), **record}
        path.write_text(json.dumps(record, indent=1) + "\n")
        tell(record)
    return json.loads(path.read_text())


def score(truth, path):
    """COCO figures of a file of detections."""
    from keras_maskrcnn import evaluation

    found = list(setup.read_found(path))
    results = evaluation.coco_results(found, range(1, len(found) + 1))
    scores = evaluation.score_detections(truth, results, max_detections=setup.MAX_DETECTIONS)
    return {name: None if np.isnan(value) else round(value, 4) for name, value in scores.items() if name != "per_class"}


def tell(record):
    """One line on a finished run."""
    figures = "  ".join(f"{name} {record[name]:.3f}" for name in FIGURES)
    print(f"{record['side']} seed {record['seed']}: {figures}  in {record['seconds']:.0f} s", flush=True)


def table(records):
    """Markdown lines: a row a figure, with the mean ± standard deviation of each side, and ours less the peer's.

    Args:
        records: {side: list of records, one a seed, seeds in the same order}.
    """
    lines = ["| | " + " | ".join([*(NAMES[side] for side in records), "difference by seed"]) + " |"]
    lines.append("|---|" + "---|" * (len(records) + 1))
    for name in (*FIGURES, "seconds"):
        digits = 0 if name == "seconds" else 3
        columns = [[record[name] for record in rows] for rows in records.values()]
        cells = [f"{statistics.mean(values):.{digits}f} ± {spread(values):.{digits}f}" for values in columns]
        if len(columns) == 2:
            cells.append(", ".join(f"{ours - peer:+.{digits}f}" for ours, peer in zip(*columns, strict=True)))
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def spread(values):
    """Sample standard deviation; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def verdict(records):
    """Whether the bar is met, in one line."""
    ap, seconds = (
        {side: statistics.mean(record[name] for record in rows) for side, rows in records.items()}
        for name in ("segm_AP", "seconds")
    )
    met = ap["ours"] >= ap["peer"] - MARGIN and seconds["ours"] < seconds["peer"]
    return (
        f"{'met' if met else 'NOT MET'}: segm AP {ap['ours'] - ap['peer']:+.3f} against torchvision (bar: -{MARGIN}), "
        f"in {seconds['ours'] / seconds['peer']:.2f} of its time (bar: below 1)"
    )


def main():
    """Run all pairs, then write and print the table."""
    arguments = parse()
    from keras_maskrcnn import data, evaluation

    arguments.output.mkdir(parents=True, exist_ok=True)
    val = data.Nuclei(arguments.data, "val")
    truth = evaluation.coco_ground_truth(val, val.class_names)
    pictures = prepare(arguments, val)
    sides = [side for side in SIDES if side == "ours" or arguments.peer_python]
    records = {side: [] for side in sides}
    for place, seed in enumerate(arguments.seeds):
        # Who goes first alternates, so that a machine which slows down is no one's loss.
        for side in sides[:: -1 if place % 2 else 1]:
            records[side].append(run(arguments, seed, side, pictures, truth))
        if not arguments.keep_crops:
            shutil.rmtree(arguments.output / f"crops_{seed}", ignore_errors=True)
    lines = table(records)
    lines += ["", verdict(records)] if "peer" in records else []
    print("\n".join(["", *lines]))
    (arguments.output / "table.md").write_text("\n".join(lines) + "\n")


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, precisions = parser.add_argument, ("auto", "float32", "bfloat16")
    add("--data", type=pathlib.Path, required=True, help="folder with stage1_train, train.txt, val.txt")
    add("--peer-python", help="Python that has torch and torchvision; without it ours runs alone")
    add("--images", type=int, default=4800, help="training crops (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one pair of runs each (default: 0 1 2)")
    add("--output", type=pathlib.Path, required=True, help="folder of the results; delete it to start anew")
    add("--precision", choices=precisions, default="auto", help="auto: bfloat16 where the processor has it")
    add("--peer-precision", choices=precisions, default="auto", help="the same for torchvision")
    add("--cores", type=int, help="confine both sides to so many cores; on a shared machine one core each is fairest")
    add("--keep-crops", action="store_true", help="do not delete a seed's crops (half a MB each) after its runs")
    arguments = parser.parse_args()
    if arguments.images < 3 * setup.BATCH:
        parser.error(f"--images must be {3 * setup.BATCH} or more")
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])  # inherited by the workers
    arguments.precision = {"ours": arguments.precision, "peer": arguments.peer_precision}
    return arguments


if __name__ == "__main__":
    main()
