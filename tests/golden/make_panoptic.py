"""Makes panoptic.npz: random panoptic maps, and what COCO's panopticapi counts in them.

python tests/golden/make_panoptic.py

It needs `pip install panopticapi-lite==0.2.0`.

Arrays: `truth` and `found` uint8 [N, H, W], ids of segments, 0 for none; `truth_segments` and `found_segments` int
[S, 4], image, id, class, whether it is a crowd; `counts` float64 [C, 5]: class, sum of the IoU, TP, FP, FN. Classes 1
and 2 are things, 3 and 4 stuff.
"""

import pathlib
import tempfile

import numpy as np
from panopticapi.evaluation import pq_compute_single_core
from PIL import Image

IMAGES, CLASSES = 40, 4
SIZE = (24, 30)


def rectangles(rng):
    """A map of up to eight rectangles, and the class and crowd flag of each.

    An image has at most one crowd of a class, as in COCO: of several, panopticapi sees the last one only.
    """
    ids = np.zeros(SIZE, np.uint8)
    for number in range(1, 9):
        y, x = rng.integers(0, 20, 2)
        ids[y : y + rng.integers(3, 14), x : x + rng.integers(3, 14)] = number
    classes = {number: int(rng.integers(1, CLASSES + 1)) for number in range(1, 9)}
    crowds = {of: number for number, of in classes.items() if rng.random() < 0.2}
    return ids, {number: (of, crowds.get(of) == number) for number, of in classes.items()}


def similar(rng, ids, classes):
    """The map shifted, with another rectangle, some classes changed and some segments left out."""
    ids = np.roll(ids, rng.integers(-2, 3, 2), (0, 1))
    ids[rng.integers(0, 20) :, rng.integers(0, 26) :] = rng.integers(0, 9)
    kept = {n: (of if rng.random() < 0.8 else 1, False) for n, (of, _) in classes.items() if rng.random() < 0.85}
    return np.where(np.isin(ids, list(kept)), ids, 0).astype(np.uint8), kept


def segments(ids, classes):
    """Segments that have pixels, as panopticapi takes them."""
    return [
        {"id": number, "category_id": of, "iscrowd": int(crowd), "area": int((ids == number).sum())}
        for number, (of, crowd) in classes.items()
        if (ids == number).any()
    ]


def main():
    """Draws the maps, counts, and writes the file beside this one."""
    rng = np.random.default_rng(0)
    maps = {"truth": [], "found": []}
    for _ in range(IMAGES):
        truth = rectangles(rng)
        maps["truth"].append(truth)
        maps["found"].append(similar(rng, *truth))
    with tempfile.TemporaryDirectory() as folder:
        annotations = {}
        for side, rows in maps.items():
            (pathlib.Path(folder) / side).mkdir()
            annotations[side] = []
            for number, (ids, classes) in enumerate(rows):
                file = f"{number}.png"
                Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], -1)).save(pathlib.Path(folder, side, file))
                row = {"image_id": number, "file_name": file, "segments_info": segments(ids, classes)}
                annotations[side].append(row)
        categories = {of: {"id": of, "isthing": int(of <= 2)} for of in range(1, CLASSES + 1)}
        pairs = list(zip(annotations["truth"], annotations["found"], strict=True))
        stat = pq_compute_single_core(0, pairs, f"{folder}/truth", f"{folder}/found", categories)
    counts = [(of, stat[of].iou, stat[of].tp, stat[of].fp, stat[of].fn) for of in range(1, CLASSES + 1)]
    tables = {
        f"{side}_segments": np.array([
            (row["image_id"], s["id"], s["category_id"], s["iscrowd"]) for row in rows for s in row["segments_info"]
        ])
        for side, rows in annotations.items()
    }  # fmt: skip
    arrays = {side: np.stack([ids for ids, _ in rows]) for side, rows in maps.items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("panoptic.npz"), counts=np.array(counts), **arrays, **tables)
    print(np.array(counts))


if __name__ == "__main__":
    main()
