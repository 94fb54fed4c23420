"""Peak memory of `predict` on a photo of 12 megapixels with 300 objects, all results written.

    python benchmarks/predict_memory.py --output benchmarks/results/predict_memory.json

The network is replaced by one that finds 300 objects of all sizes at once, so that pasting, drawing and writing
decide. Each case is a process of its own. "imports": the process before the image is read; "detect": `detect` alone,
with masks as arrays and cropped; "predict": the command with overlay, COCO results, CSV rows, id image and cut-outs, of
several photos in a row.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import machine
import numpy as np
import pairs
import reports

SIZE, CANVAS, CELLS = (3000, 4000), (192, 256), 28
CASES = ("imports", "detect, full masks", "detect, cropped masks", "predict")


class Crowd:
    """A network that finds the same objects in each canvas."""

    dynamic = True

    def __init__(self, count):
        rng = np.random.default_rng(0)
        # The median side is a tenth of the image; one box in six is larger than a quarter.
        frame = np.array([CANVAS[1], CANVAS[0]])
        sides = np.exp(rng.normal(np.log(0.1), 0.9, (count, 2))).clip(0.01, 1) * frame
        corners = rng.uniform(0, 1, (count, 2)) * (frame - sides)
        distance = ((np.arange(CELLS) + 0.5) / CELLS * 2 - 1) ** 2
        disc = (distance[:, None] + distance < 1).astype("float32")
        self.found = {
            "boxes": np.concatenate([corners, corners + sides], axis=1).astype("float32"),
            "labels": np.ones(count, "int32"),
            "scores": np.linspace(0.99, 0.6, count).astype("float32"),
            "masks": np.tile(disc, (count, 1, 1)),
            "valid": np.ones(count, bool),
        }

    def __call__(self, inputs, limits):
        """The detections in a batch."""
        batch = len(inputs["images"])
        return {name: np.repeat(values[None], batch, axis=0) for name, values in self.found.items()}


def detector(count):
    """An object with `detect`, `detect_each`, `class_names` and `schema` around the network."""
    from keras_maskrcnn.heads.detection import OUTPUTS, Detection
    from keras_maskrcnn.heads.outputs import Output
    from keras_maskrcnn.inference.placement import Placement, Resize
    from keras_maskrcnn.inference.predictor import Detector, Predictor

    made = Detector()
    made.class_names, made.schema = ["object"], (*OUTPUTS, Output("masks", "box_masks"))
    options = Detection(max_detections=count)
    made.predictor = Predictor(Crowd(count), Placement(CANVAS, Resize(), 32), made.schema, options)
    return made


def photo(size=SIZE):
    """A photo of smooth colours, uint8 [*size, 3]."""
    rows, columns = np.linspace(0, 255, size[0], dtype=np.uint8), np.linspace(0, 255, size[1], dtype=np.uint8)
    return np.dstack(np.broadcast_arrays(rows[:, None], columns, rows[::-1, None]))


def run(case, count, photos):
    """Runs a case in this process; returns its peak memory in MB."""
    from PIL import Image

    from keras_maskrcnn import cli

    model = detector(count)
    if case.startswith("detect"):
        found = model.detect(photo(), masks="cropped" if "cropped" in case else "full")
        assert len(found["masks"]) == count
    elif case == "predict":
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(cli.predict, "load", lambda _: model):
            folder = pathlib.Path(folder)
            for number in range(photos):
                Image.fromarray(photo()).save(folder / f"{number}.jpg")
            results = ["--json", folder / "found.json", "--csv", folder / "found.csv", "--ids", "--cutouts"]
            words = ["predict", folder, "--model", "crowd", "--output", folder / "out", *results]
            assert cli.main([str(word) for word in words]) == 0
            assert len(json.loads((folder / "found.json").read_text())) == count * photos
    return machine.peak_memory()


def main():
    """Starts a process for each case and writes their figures; with --case runs that one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--objects", type=pairs.positive, default=300, help="in each photo (default: %(default)s)")
    add("--photos", type=pairs.positive, default=3, help="of the case predict (default: %(default)s)")
    add("--case", choices=CASES, help="run this case here and print its peak memory in MB last")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    if options.case:
        print(run(options.case, options.objects, options.photos))
        return
    report = {**reports.header("predict_memory.py"), "objects": options.objects, "photos": options.photos, "mb": {}}
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        command += ["--objects", str(options.objects), "--photos", str(options.photos)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report["mb"][case] = int(done.stdout.split()[-1])
        print(f"{case}: {report['mb'][case]} MB", flush=True)
    reports.write(options.output, report)


if __name__ == "__main__":
    main()
