"""What half precision costs in accuracy: a trained model's COCO figures in float32 and in mixed_bfloat16.

    python benchmarks/precision.py --model runs/demo/model.keras --output benchmarks/results/precision.json
    python benchmarks/precision.py --model runs/demo/model.keras --pictures 500

Both run on the same weights and pictures: shapes drawn on the spot that the model has not seen.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import pairs

from keras_maskrcnn import MaskRCNN, data, evaluation
from keras_maskrcnn.ops.boxes import iou

POLICIES = ("float32", "mixed_bfloat16")
FIGURES = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")


def with_policy(model, policy):
    """The same model and weights under another dtype policy."""
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


def main():
    """Score under both policies, print the figures beside each other, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help=".keras file of a model trained on shapes")
    parser.add_argument("--pictures", type=int, default=200, help="pictures to score (default %(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="of the pictures; the recipes train on 1")
    parser.add_argument("--size", type=int, nargs=2, help="height and width of the pictures (default: the model's)")
    parser.add_argument("--output", type=pathlib.Path, help="JSON to write")
    options = parser.parse_args()
    model = keras.saving.load_model(options.model, compile=False)
    size = tuple(options.size or model.image_size)
    pictures = data.Shapes(options.pictures, image_size=size, seed=options.seed, scale_objects=True)
    scores, found = {}, {}
    for policy in POLICIES:
        copy, start = with_policy(model, policy), time.perf_counter()
        scores[policy] = evaluation.coco_scores(copy, pictures)
        print(f"{policy:16s}{time.perf_counter() - start:6.1f} s", flush=True)
        found[policy] = copy.detect([pictures[i]["image"] for i in range(len(pictures))])
    print(f"\n{'':12s}" + "".join(f"{policy:>18s}" for policy in POLICIES) + f"{'difference':>14s}")
    for name in FIGURES:
        exact, half = (scores[policy][name] for policy in POLICIES)
        print(f"{name:12s}{exact:18.4f}{half:18.4f}{half - exact:+14.4f}")
    partners = agreement(*(found[policy] for policy in POLICIES))
    print(f"detections above a score of 0.5: {partners}")
    if options.output:
        figures = {policy: {name: scores[policy][name] for name in FIGURES} for policy in POLICIES}
        content = {"script": "benchmarks/precision.py", "pictures": len(pictures), **figures, "agreement": partners}
        content |= {"machine": pairs.machine(), "date": time.strftime("%Y-%m-%d")}
        options.output.write_text(json.dumps(content, indent=2) + "\n")
        print(f"figures  {options.output}")


if __name__ == "__main__":
    main()
