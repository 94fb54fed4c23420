"""Makes tide.npz: boxes, and what the authors' own program (pip install tidecv==1.0.1) finds in them.

python tests/golden/make_tide.py
"""

import pathlib

import numpy as np
import tidecv

CLASSES, IMAGES = 4, 30


def boxes(rng):
    """Objects [n, 6] (image, class, x, y, width, height) and detections [n, 7] with a score, all kinds of errors."""
    objects, detections = [], []
    for image in range(1, IMAGES + 1):
        for _ in range(rng.integers(0, 7)):
            box, label = np.append(rng.integers(0, 90, 2), rng.integers(8, 40, 2)), rng.integers(1, CLASSES + 1)
            objects.append([image, label, *box])
            for _ in range(rng.choice([0, 1, 1, 2])):
                shift = np.append(rng.normal(0, 0.18, 2) * box[2:], np.zeros(2))
                found = label if rng.random() < 0.7 else rng.integers(1, CLASSES + 1)
                detections.append([image, found, *(box + shift), rng.random()])
        for _ in range(rng.choice([0, 1])):
            box = [*rng.integers(0, 90, 2), *rng.integers(8, 40, 2)]
            detections.append([image, rng.integers(1, CLASSES + 1), *box, rng.random()])
    return np.array(objects, np.float64), np.array(detections, np.float64)


def main():
    """Runs TIDE on the boxes and writes both."""
    objects, detections = boxes(np.random.default_rng(0))
    truth, found = tidecv.Data("truth"), tidecv.Data("found")
    for image in range(1, IMAGES + 1):
        truth.add_image(image, str(image))
    for image, label, *box in objects:
        truth.add_ground_truth(int(image), int(label), box=box)
    for image, label, *box, score in detections:
        found.add_detection(int(image), int(label), score, box=box)
    run = tidecv.TIDE().evaluate(truth, found, mode=tidecv.TIDE.BOX)
    main_errors = {error.short_name: value for error, value in run.fix_main_errors().items()}
    special = {error.short_name: value for error, value in run.fix_special_errors().items()}
    counts = {error.short_name: value for error, value in run.count_errors().items()}
    names = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    np.savez_compressed(
        pathlib.Path(__file__).parent / "tide.npz",
        objects=objects,
        detections=detections,
        ap=run.ap / 100,
        gains=np.array([*(main_errors[name] for name in names), special["FalsePos"], special["FalseNeg"]]) / 100,
        counts=[counts[name] for name in names],
    )


if __name__ == "__main__":
    main()
