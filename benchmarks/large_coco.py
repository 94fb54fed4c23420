"""Opens a COCO file of a million annotations: the first time, and again with the index that was kept.

    python benchmarks/large_coco.py [--annotations 1000000] [--folder FOLDER]

The file is made first, with seven polygons of 8 to 40 corners per image, about as in COCO's train2017 (860,001
annotations of 118,287 images). No image file is opened. Each opening is a process of its own; its memory is what it
holds more than a process that only imports the reader: resident at the end, and at the peak. Then it reads the
annotations of 1,000 images in random order, masks included.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

PER_IMAGE = 7
HEIGHT, WIDTH = 480, 640
CASES = ("import", "first", "second")


def write(path, count, seed=0):
    """Writes a COCO file of `count` annotations, record by record; returns the number of images."""
    rng = np.random.default_rng(seed)
    images = -(-count // PER_IMAGE)
    with path.open("w") as file:
        file.write('{"info": {"description": "generated"}, "images": [')
        for number in range(images):
            record = {"id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH}
            file.write(f"{', ' if number else ''}{json.dumps(record)}")
        file.write('], "annotations": [')
        for number in range(count):
            file.write(f"{', ' if number else ''}{json.dumps(_annotation(number, images, rng))}")
        categories = [{"id": label, "name": f"class {label}"} for label in range(1, 81)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return images


def _annotation(number, images, rng):
    angles = np.sort(rng.random(rng.integers(8, 41))) * 2 * np.pi
    centre, radius = rng.uniform(100, 380, 2), rng.uniform(10, 90, len(angles))
    points = np.round(centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), 2)
    low, high = points.min(0), points.max(0)
    return {
        "segmentation": [points.ravel().tolist()],
        "area": float(np.round(np.prod(high - low) / 2, 4)),
        "iscrowd": 0,
        "image_id": int(number % images),  # those of an image are apart, as in COCO's own files
        "bbox": np.round([*low, *(high - low)], 2).tolist(),
        "category_id": int(rng.integers(1, 81)),
        "id": number + 1,
    }


def opening(case, path):
    """Figures of one process: seconds, and bytes resident at the end and at the peak."""
    from keras_maskrcnn import data

    figures, coco = {}, data.Coco  # imports the reader
    if case != "import":
        start = time.perf_counter()
        coco = data.Coco(path, path.parent)
        figures["seconds"] = time.perf_counter() - start
    figures |= {"resident": _resident(), "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if case == "second":
        chosen = np.random.default_rng(0).permutation(len(coco))[:1000].tolist()
        start = time.perf_counter()
        for position in chosen:
            for annotation in coco.coco_annotations(coco.images[position]["id"]):
                assert annotation["segmentation"]
        figures["read_ms"] = (time.perf_counter() - start) / len(chosen) * 1000
    return figures


def _resident():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measured(path, cache):
    """Figures of each case, a dict by name."""
    environment = {**os.environ, "KMR_CACHE": str(cache)}
    command = [sys.executable, __file__, "--open", str(path), "--case"]
    runs = {case: subprocess.run([*command, case], env=environment, capture_output=True, text=True) for case in CASES}
    for case, done in runs.items():
        if done.returncode:
            raise SystemExit(f"{case}: {done.stderr[-500:]}")
    return {case: json.loads(done.stdout) for case, done in runs.items()}


def table(figures, images, size):
    """The figures as Markdown."""
    lines = [
        f"{images} images, {size / 1e6:.0f} MB of JSON",
        "",
        "| opening | s | peak, MB | resident, MB | bytes an image |",
    ]
    lines.append("|---|---|---|---|---|")
    base = figures["import"]
    for case in CASES[1:]:
        found = figures[case]
        peak, resident = (found[name] - base[name] for name in ("peak", "resident"))
        lines.append(
            f"| {case} | {found['seconds']:.2f} | {peak / 1e6:.0f} | {resident / 1e6:.0f} | {resident / images:.0f} |"
        )
    return "\n".join(
        [*lines, "", f"annotations of an image, run lengths included: {figures['second']['read_ms']:.2f} ms"]
    )


def main():
    """Makes the file, opens it three times, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--folder", type=pathlib.Path, help="for the file, which is kept (default: a temporary folder)")
    parser.add_argument("--open", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(opening(arguments.case, arguments.open)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"generated_{arguments.annotations}.json"
        if not path.exists():
            write(path, arguments.annotations)
        images = -(-arguments.annotations // PER_IMAGE)
        print(table(measured(path, pathlib.Path(temporary) / "cache"), images, path.stat().st_size))


if __name__ == "__main__":
    main()
