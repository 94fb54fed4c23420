"""Compares this package with the files of `torch_side.py`; prints a table; exit status 1 if a bar is missed.

KMR_DATA=… python tests/parity/compare.py runs/parity
"""

import pathlib
import sys

import cases
import generated
import measure
import numpy as np
import ours

from keras_maskrcnn import weights


def pictures(folder, version):
    """Prints a table for each image of a version; returns all rows."""
    yolact = version in generated.YOLACT
    model = ours.build(version, (cases.SQUARE, cases.SQUARE) if yolact else cases.FULL)
    report = weights.load(model, folder / f"{version}.pth", "yolact" if yolact else "torchvision")
    print(f"{version}: {report.loaded} arrays loaded from {version}.pth, {len(report.unused)} left over")
    rows = []
    for path in sorted(folder.glob(f"{version}_*.npz")):
        with np.load(path) as file:
            theirs = dict(file)
        found = measure.picture_rows(ours.answers(model, theirs["picture"], theirs), theirs)
        shape = "×".join(str(side) for side in theirs["picture"].shape[:2])
        print(measure.table(f"{path.stem} {shape}, {len(theirs['scores'])} detections", found), flush=True)
        rows += found
    return rows


def training(folder, version, batch):
    """Prints a table for a training case; returns its rows."""
    with np.load(folder / f"training_{version}.npz") as file:
        theirs = dict(file)
    found = ours.training(batch, version=version)
    rows = measure.loss_rows(found, theirs, ours.LOSSES[version]) + measure.gradient_rows(found, theirs)
    print(measure.table(f"{version} training", rows))
    return rows


def main(folder):
    rows = [row for version in generated.VERSIONS for row in pictures(folder, version)]
    batches = cases.training_cases(cases.training_pictures(cases.photos_folder()))
    rows += [row for version, batch in batches.items() for row in training(folder, version, batch)]
    missed = sum(not row.good for row in rows)
    print(f"{len(rows)} measures, {missed} missed")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
