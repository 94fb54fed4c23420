r"""Finding the objects of one picture: this package against torchvision or TF Model Garden, ResNet-50-FPN, 91 outputs.

    python benchmarks/inference.py --peer torchvision --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION \
        --output benchmarks/results/inference.json
    python benchmarks/inference.py --peer model-garden --peer-python PATH_OF_A_PYTHON_WITH_TF_MODELS_OFFICIAL

A call starts with the picture in uint8 and ends with masks pasted at its size: resizing, normalising, proposals, NMS
and 100 detections lie between. Both sides must have pasted equally many masks of equal size. The weights are generated,
for ours and torchvision the same; see `scenes.py`. Every case has processes of its own, so that its peak memory and its
first call, in which ours is traced, are its own too. `--saved-model` adds the same network exported and read back.
"""

import argparse
import subprocess
import sys
import tempfile
import time

import pairs
import peers
import scenes

SAVED_MODEL = "SavedModel "


def cases(precisions, peer=None, saved_model=False):
    """Names of the cases; those of the SavedModel have no peer."""
    exported = [SAVED_MODEL + precision for precision in precisions] if saved_model else []
    return peers.cases(precisions, peer) + exported


def check(ours, peer):
    """None, or why the two did not do the same work."""
    same = ours["mask_shape"] == peer["mask_shape"] and ours["detections"] > 0
    return None if same else f"ours pasted masks of shape {ours['mask_shape']}, the peer {peer['mask_shape']}"


def network(precision, size, tiny=False):
    """Our network, at whose scale a picture of (height, width) is left as it is."""
    return scenes.network(tiny, dtype=precision, resize={"shorter": min(size), "longer": max(size)})


def ours(precision, picture, tiny=False):
    """Call of one case on this package."""
    return _detecting(network(precision, picture.shape[:2], tiny), picture)


def saved_model(precision, picture, tiny=False):
    """Call of a SavedModel, which another process has written, so that this one is as new as a server's."""
    from keras_maskrcnn.inference.saved_model import SavedModel

    with tempfile.TemporaryDirectory() as folder:
        size = [str(side) for side in picture.shape[:2]]
        command = [sys.executable, __file__, "--size", *size, "--export", precision, folder, *(["--tiny"] * tiny)]
        subprocess.run(command, check=True)
        start = time.perf_counter()
        model = SavedModel(folder)
        seconds = round(time.perf_counter() - start, 3)
    return _detecting(model, picture, load_s=seconds)


def _detecting(model, picture, **facts):
    def call():
        found = model.detect(picture, score_threshold=peers.SCORE_THRESHOLD)
        return {"detections": len(found["labels"]), "mask_shape": list(found["masks"].shape), **facts}

    return call, 1


def export(precision, folder, size, tiny):
    """Writes the network as a SavedModel."""
    network(precision, size, tiny).export(folder)


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 7)
    peers.add_arguments(parser)
    add = parser.add_argument
    add("--saved-model", action="store_true", help="time an exported network too, which no peer has")
    add("--size", nargs=2, type=pairs.positive, default=[800, 1066], metavar=("HEIGHT", "WIDTH"), help="of the picture")
    add("--tiny", action="store_true", help="ours with some ten thousand weights, to try this script out")
    add("--export", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    options = parse()
    if options.export:
        export(*options.export, options.size, options.tiny)
    elif options.worker:
        pairs.serve(lambda name: case(name, options))
    else:
        names = cases(peers.precisions(options), options.peer if options.peer_python else None, options.saved_model)
        words = ["--peer", options.peer, "--size", *options.size, *(["--tiny"] * options.tiny)]
        pairs.compare(
            __file__,
            names,
            options.peer_python,
            options.rounds,
            output=options.output,
            check=check,
            options=words,
            peer_name=options.peer,
            fresh=True,
        )


def case(name, options):
    """What a worker serves for a case's name."""
    mine, kind = peers.parts(name)
    picture = scenes.scene(*options.size, peers.OBJECTS)[0]
    if options.worker == "peer":
        return peers.load(options.peer).inference(kind, picture) if kind else None
    make = saved_model if mine.startswith(SAVED_MODEL) else ours
    return make(mine.removeprefix(SAVED_MODEL), picture, options.tiny)


if __name__ == "__main__":
    main()
