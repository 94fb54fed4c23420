r"""Detection in a folder of photos: this package against torchvision in a loop, ResNet-50-FPN, 91 outputs.

    python benchmarks/predict_folder.py --photos PHOTOS --pictures 240 \
        --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION --output benchmarks/results/predict_folder.json

A call reads every JPEG file, detects its objects and pastes their masks at the size of the photo; nothing is drawn or
written. This package reads files with a generator, as `python -m keras_maskrcnn predict` does; torchvision decodes,
detects and thresholds one photo after another. Both have the same generated weights (`scenes.py`) and score threshold;
the numbers of detections may differ by 5 %. The first photo warms up. Without `--photos` images are generated, of sizes
that are common in COCO.
"""

import argparse
import itertools
import pathlib
import tempfile

import numpy as np
import pairs
import peers
import scenes
from PIL import Image

# (height, width) in pixels.
COCO_SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (500, 333), (425, 640), (640, 640))
SUFFIXES = {".jpg", ".jpeg", ".png"}
TOLERANCE = 0.05


def fill_folder(folder, pictures, photos=None):
    """Writes JPEG files with ascending names.

    Args:
        folder: folder of the files.
        pictures: number of files.
        photos: folder of images, which are repeated in order; or None for generated images.

    Raises:
        SystemExit: if `photos` has no image.
    """
    sources = COCO_SIZES if photos is None else sorted(p for p in photos.glob("*") if p.suffix.lower() in SUFFIXES)
    if not sources:
        raise SystemExit(f"{photos}: no JPEG or PNG image in this folder")
    for place, source in zip(range(pictures), itertools.cycle(sources)):
        image = scenes.scene(*source, peers.OBJECTS, seed=place)[0] if photos is None else read(source)
        Image.fromarray(image).save(folder / f"{place:06d}.jpg", quality=90)


def read(path):
    """An image file as uint8 `[H, W, 3]`."""
    return np.array(Image.open(path).convert("RGB"))


def check(ours, peer):
    """None, or a line about a difference between the work of both sides."""
    mine, other = ours["detections"], peer["detections"]
    same = ours["pictures"] == peer["pictures"] and abs(mine - other) <= TOLERANCE * max(mine, other)
    return None if same else f"ours found {ours}, the peer {peer}"


def ours(precision, paths, threshold, tiny=False):
    """The call of one case on this package, and its repeats."""
    model = scenes.network(tiny, dtype=precision)

    def find(paths):
        found = [len(found["labels"]) for found in model.detect_each((read(path) for path in paths), threshold)]
        return {"pictures": len(found), "detections": sum(found)}

    return lambda: find(paths), 1, lambda: find(paths[:1])


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 3)
    peers.add_precision(parser)
    add = parser.add_argument
    add("--photos", type=pathlib.Path, metavar="FOLDER", help="images, repeated in order (default: generated images)")
    add("--pictures", type=pairs.positive, default=240, help="number of files (default: %(default)s)")
    add(
        "--score-threshold",
        type=float,
        default=peers.SCORE_THRESHOLD,
        help="score threshold of both sides (default: %(default)s)",
    )
    add(
        "--tiny",
        action="store_true",
        help="replace our network by one of about ten thousand weights, to test the script",
    )
    ways = sorted({kind for kinds in peers.KINDS["torchvision"].values() for kind in kinds})
    add("--peer-kind", choices=ways, help="how torchvision runs (default: each way of the precision)")
    add("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.photos and not options.photos.is_dir():
        parser.error(f"--photos {options.photos}: no such folder")
    if options.peer_kind:
        precisions = peers.precisions(options)
        if not options.peer_python:
            parser.error(f"--peer-kind {options.peer_kind}: needs --peer-python")
        if not any(options.peer_kind in peers.KINDS["torchvision"][precision] for precision in precisions):
            parser.error(f"--peer-kind {options.peer_kind}: not compared with --precision {' '.join(precisions)}")
    return options


def main():
    """Parent: fills the folder, starts the workers and prints the table. Worker: serves the cases of its side."""
    options = parse()
    if options.worker:
        pairs.serve(lambda name: case(name, options))
        return
    names = peers.cases(peers.precisions(options), "torchvision" if options.peer_python else None)
    chosen = [name for name in names if options.peer_kind in (None, peers.parts(name)[1])]
    with tempfile.TemporaryDirectory() as folder:
        fill_folder(pathlib.Path(folder), options.pictures, options.photos)
        pairs.compare(
            __file__,
            options,
            chosen,
            check=check,
            words=["--folder", folder, "--score-threshold", options.score_threshold, *(["--tiny"] * options.tiny)],
            unit="s",
            fresh=True,
        )


def case(name, options):
    """The case of a name, for a worker."""
    mine, kind = peers.parts(name)
    paths = sorted(options.folder.glob("*.jpg"))
    if options.worker == "peer":
        return peers.load("torchvision").folder(kind, paths, options.score_threshold)
    return ours(mine, paths, options.score_threshold, options.tiny)


if __name__ == "__main__":
    main()
