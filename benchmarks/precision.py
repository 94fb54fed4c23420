"""What half precision costs in accuracy: the same weights and pictures in float32 and in mixed_bfloat16.

    python benchmarks/precision.py --model runs/demo/model.keras --output benchmarks/results/precision.json
    python benchmarks/precision.py --photos PHOTOS --output benchmarks/results/precision_photos.json

With `--model` COCO figures and detections of a trained model, on shapes drawn on the spot that it has not seen. With
`--photos` detections of a ResNet-50-FPN with the generated weights of the other benchmarks (`scenes.py`): COCO-sized
weights, which no training has made robust.
"""

import argparse
import pathlib
import time

import numpy as np
import pairs
import reports
import scenes
from predict_folder import SUFFIXES, read

POLICIES = ("float32", "mixed_bfloat16")
FIGURES = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")


def with_policy(model, policy):
    """The same model and weights under another dtype policy."""
    import keras

    from keras_maskrcnn import MaskRCNN

    config = model.get_config()
    config["backbone"]["config"]["dtype"] = keras.saving.serialize_keras_object(keras.dtype_policies.get(policy))
    copy = MaskRCNN.from_config({**config, "dtype": policy})
    copy.set_weights(model.get_weights())
    return copy


def agreement(first, second, least_iou=0.9):
    """How far two lists of detections tell the same.

    Args:
        first: list of dicts as `MaskRCNN.detect` returns, one a picture.
        second: the same of the other precision.
        least_iou: from which two boxes of a class are partners.

    Returns:
        dict: `detections` of the first, `partners` among the second, and the largest difference of partners' scores.
    """
    import keras

    from keras_maskrcnn.ops.boxes import iou

    partners, total, difference = 0, 0, 0.0
    for one, other in zip(first, second, strict=True):
        total += len(one["labels"])
        if not len(one["labels"]) or not len(other["labels"]):
            continue
        overlap = keras.ops.convert_to_numpy(iou(one["boxes"], other["boxes"]))
        overlap = np.where(one["labels"][:, None] == other["labels"], overlap, 0)
        best, found = overlap.argmax(axis=1), overlap.max(axis=1) >= least_iou
        partners += int(found.sum())
        if found.any():
            difference = max(difference, float(np.abs(one["scores"] - other["scores"][best])[found].max()))
    return {"detections": total, "partners": partners, "largest_score_difference": round(difference, 4)}


def of_shapes(options):
    """COCO figures and agreement of a trained model, a dict; prints them as they come."""
    import keras

    from keras_maskrcnn import data, evaluation

    model = keras.saving.load_model(options.model, compile=False)
    size = tuple(options.size or model.image_size)
    pictures = data.Shapes(options.pictures, image_size=size, seed=options.seed, scale_objects=True)
    scores, found = {}, {}
    for policy in POLICIES:
        copy, start = with_policy(model, policy), time.perf_counter()
        scores[policy] = evaluation.coco_scores(copy, pictures)
        print(f"{policy:16s}{time.perf_counter() - start:6.1f} s", flush=True)
        found[policy] = copy.detect([pictures[i]["image"] for i in range(len(pictures))], options.score_threshold)
    print(f"\n{'':12s}" + "".join(f"{policy:>18s}" for policy in POLICIES) + f"{'difference':>14s}")
    for name in FIGURES:
        exact, half = (scores[policy][name] for policy in POLICIES)
        print(f"{name:12s}{exact:18.4f}{half:18.4f}{half - exact:+14.4f}")
    figures = {policy: {name: scores[policy][name] for name in FIGURES} for policy in POLICIES}
    return {"pictures": len(pictures), **figures, "agreement": agreement(*(found[policy] for policy in POLICIES))}


def of_photos(options):
    """Agreement of the generated ResNet-50-FPN on photos, a dict.

    Raises:
        SystemExit: if there is no picture in the folder.
    """
    paths = sorted(path for path in options.photos.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"{options.photos}: no JPEG or PNG picture in this folder")
    found = {}
    for policy in POLICIES:
        model = scenes.network(options.tiny, dtype=policy)
        start = time.perf_counter()
        found[policy] = list(model.detect_each((read(path) for path in paths), options.score_threshold))
        print(f"{policy:16s}{time.perf_counter() - start:6.1f} s", flush=True)
    return {"pictures": len(paths), "agreement": agreement(*(found[policy] for policy in POLICIES))}


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--model", type=pathlib.Path, help=".keras file of a model trained on shapes")
    subject.add_argument("--photos", type=pathlib.Path, metavar="FOLDER", help="pictures for the generated weights")
    add = parser.add_argument
    add("--pictures", type=pairs.positive, default=200, help="shapes to score (default: %(default)s)")
    add("--seed", type=int, default=2, help="of the shapes; the recipes train on 1")
    add("--size", type=int, nargs=2, help="height and width of the shapes (default: the model's)")
    add("--score-threshold", type=float, default=0.5, help="of compared detections (default: %(default)s)")
    add("--tiny", action="store_true", help="with --photos: some ten thousand weights, to try this script out")
    add("--output", type=pathlib.Path, metavar="FILE", help="JSON to write")
    options = parser.parse_args()
    for name in ("model", "photos"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            parser.error(f"--{name} {path}: no such {'file' if name == 'model' else 'folder'}")
    return options


def main():
    """Measure, print, write."""
    options = parse()
    figures = of_photos(options) if options.photos else of_shapes(options)
    print(f"detections that score {options.score_threshold:g} or more: {figures['agreement']}")
    reports.write(
        options.output, {**reports.header("precision.py"), **figures, "score_threshold": options.score_threshold}
    )


if __name__ == "__main__":
    main()
