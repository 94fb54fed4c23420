r"""Detection in one image: this package against torchvision or TF Model Garden, ResNet-50-FPN, 91 outputs.

    python benchmarks/inference.py --peer torchvision --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION \
        --output benchmarks/results/inference.json
    python benchmarks/inference.py --peer model-garden --peer-python PATH_OF_A_PYTHON_WITH_TF_MODELS_OFFICIAL
    python benchmarks/inference.py --peer openvino --without-pasting
    python benchmarks/inference.py --peer onnxruntime --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION_AND_ONNXRUNTIME

A call starts with the uint8 image and ends with masks pasted at its size; it includes resizing, normalisation,
proposals, NMS and 100 detections. Both sides must paste the same number of masks of the same size. This package and
torchvision have the same generated weights, see `scenes.py`. Every case has its own processes, so that its peak memory
and its first call, which includes tracing, are independent of other cases. `--saved-model` adds the exported network.

The peers `openvino` and `onnxruntime` are inference engines. Without `--peer-python` they run our network, in this
Python, from a file for one canvas; with a Python that has torchvision and the engine, its network.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import pairs
import peers
import scenes

SAVED_MODEL = "SavedModel "


def cases(precisions, peer=None, saved_model=False):
    """Names of the cases; SavedModels have no peer."""
    exported = [SAVED_MODEL + precision for precision in precisions] if saved_model else []
    return peers.cases(precisions, peer) + exported


def check(ours, peer):
    """None, or a line about a difference between the work of both sides."""
    same = ours["mask_shape"] == peer["mask_shape"] and ours["detections"] > 0
    return None if same else f"ours pasted masks of shape {ours['mask_shape']}, the peer {peer['mask_shape']}"


def network(precision, size, tiny=False):
    """Our network; it does not resize images of `size` (height, width)."""
    return scenes.network(tiny, dtype=precision, resize={"shorter": min(size), "longer": max(size)})


def ours(precision, image, tiny=False, pasting=True):
    """The call of one case on this package, and its repeats."""
    return peers.detecting(network(precision, image.shape[:2], tiny), image, pasting), 1


def saved_model(precision, image, tiny=False, pasting=True):
    """The call of a SavedModel. Another process writes it, so that this process has not built the model before."""
    from keras_maskrcnn.inference.saved_model import SavedModel

    with tempfile.TemporaryDirectory() as folder:
        size = [str(side) for side in image.shape[:2]]
        command = [sys.executable, __file__, "--size", *size, "--export", precision, folder, *(["--tiny"] * tiny)]
        subprocess.run(command, check=True)
        start = time.perf_counter()
        model = SavedModel(folder)
        seconds = round(time.perf_counter() - start, 3)
    return peers.detecting(model, image, pasting, load_s=seconds), 1


def export(precision, path, size, tiny):
    """Writes the network: as a SavedModel, or as a file of an engine for one image of `size`."""
    model = network(precision, size, tiny)
    engine = {"image_size": size, "batch": 1} if pathlib.Path(path).suffix else {}
    model.export(path, **engine)


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 7)
    peers.add_arguments(parser, engines=True)
    add = parser.add_argument
    add("--saved-model", action="store_true", help="also time the exported network, which has no peer")
    add("--without-pasting", action="store_true", help="a call ends with masks inside boxes, on both sides")
    add(
        "--size",
        nargs=2,
        type=pairs.positive,
        default=[800, 1066],
        metavar=("HEIGHT", "WIDTH"),
        help="size of the image (default: 800 1066)",
    )
    add(
        "--tiny",
        action="store_true",
        help="replace our network by one of about ten thousand weights, to test the script",
    )
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
        if options.peer in peers.ENGINES and not options.peer_python:
            options.peer_python = sys.executable
        names = cases(peers.precisions(options), options.peer if options.peer_python else None, options.saved_model)
        words = ["--peer", options.peer, "--size", *options.size, *(["--tiny"] * options.tiny)]
        words += ["--without-pasting"] * options.without_pasting
        pairs.compare(__file__, options, names, check=check, words=words, peer_name=options.peer, fresh=True)


def case(name, options):
    """The case of a name, for a worker."""
    mine, kind = peers.parts(name)
    image = scenes.scene(*options.size, peers.OBJECTS)[0]
    pasting = not options.without_pasting
    if options.worker == "peer":
        return peer_case(options, kind, image, pasting) if kind else None
    make = saved_model if mine.startswith(SAVED_MODEL) else ours
    return make(mine.removeprefix(SAVED_MODEL), image, options.tiny, pasting)


def peer_case(options, kind, image, pasting):
    """The case of a peer."""
    if options.peer in peers.ENGINES:
        from peers import engines

        return engines.inference(options.peer, kind, image, tiny=options.tiny, pasting=pasting)
    if not pasting:
        raise SystemExit(f"--without-pasting: {options.peer} pastes masks; it is for {' and '.join(peers.ENGINES)}")
    return peers.load(options.peer).inference(kind, image)


if __name__ == "__main__":
    main()
