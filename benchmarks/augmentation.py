"""COCO scores of the model `nuclei` with and without test-time augmentation, and the seconds that they take.

    python benchmarks/augmentation.py --data NUCLEI --limit 20 --output benchmarks/results/augmentation.json

The images are the first ones of the validation list.
"""

import argparse
import pathlib
import time

import pairs
import reports

WAYS = {
    "none": None,
    "flip": {"flip": True},
    "0.75,1.25": {"flip": False, "scales": (0.75, 1.25)},
    "flip,0.75,1.25": {"flip": True, "scales": (0.75, 1.25)},
}
FIGURES = ("bbox_AP", "segm_AP", "segm_AP50", "segm_AP75")


def measure(options):
    """Scores and times of each way: the dict for the JSON file."""
    from keras_maskrcnn import MaskRCNN, data, evaluation
    from keras_maskrcnn.inference import TestTimeAugmentation

    model, dataset = MaskRCNN.from_preset("nuclei"), data.Nuclei(options.data, split="val")
    report = {**reports.header("augmentation.py"), "images": min(options.limit, len(dataset)), "ways": {}}
    for name, views in WAYS.items():
        detector = model if views is None else TestTimeAugmentation(model, **views)
        start = time.perf_counter()
        scores = evaluation.coco_scores(detector, dataset, max_detections=400, batch_size=1, limit=options.limit)
        found = {figure: round(scores[figure], 4) for figure in FIGURES}
        report["ways"][name] = {**found, "seconds": round(time.perf_counter() - start, 1)}
        print(name, report["ways"][name], flush=True)
    return report


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=pathlib.Path, required=True, help="folder of the nuclei data set, see data.Nuclei")
    add("--limit", type=pairs.positive, default=20, help="number of images (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    reports.write(options.output, measure(options))


if __name__ == "__main__":
    main()
