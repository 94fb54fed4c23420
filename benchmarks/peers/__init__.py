"""The libraries that this package is compared with, one module each.

Each module has `inference(kind, image)` and `training(kind, x, y)`; torchvision's has `folder(kind, paths, threshold)`.
They return cases for `pairs.serve`. Images are uint8 `[H, W, 3]`; x and y are those of `scenes.training_batch`.
"""

import importlib

import machine

# How each library runs, by the precision of this package that it is compared with.
KINDS = {
    "torchvision": {
        "float32": ("float32 eager", "float32 channels-last"),
        "mixed_bfloat16": ("bfloat16 channels-last", "float32 eager"),
    },
    "model-garden": {"float32": ("float32 graph",), "mixed_bfloat16": ("bfloat16 graph",)},
    "openvino": {
        "float32": ("float32, our network", "float32, torchvision's network", "int8, our network"),
        "mixed_bfloat16": ("bfloat16, our network", "bfloat16, torchvision's network", "int8, our network"),
    },
    "onnxruntime": {
        precision: ("float32, our network", "float32, torchvision's network")
        for precision in ("float32", "mixed_bfloat16")
    },
}
MODULES = {"torchvision": "torchvision_maskrcnn", "model-garden": "model_garden"}
ENGINES = ("openvino", "onnxruntime")  # of `engines.inference`
PRECISIONS = ("float32", "mixed_bfloat16")
SEPARATOR = "; "

# Common to all sides: numbers of rectangles per image, and numbers of detector and optimizer.
OBJECTS, TRAINING_OBJECTS = 30, 8
SCORE_THRESHOLD = 0.05
# The learning rate is so low that the weights hardly change, and every step does the same work.
RATE, MOMENTUM = 1e-6, 0.9
# Regions per image in the mask head of TF Model Garden, which has a fixed number: about as many as in this package.
MASK_ROIS = 13


def load(peer):
    """The module of a peer."""
    return importlib.import_module(f"peers.{MODULES[peer]}")


def cases(precisions, peer=None):
    """Names of cases: the precision of this package and, if there is a peer, how it runs.

    Args:
        precisions: some of `PRECISIONS`.
        peer: one of `KINDS`, or None.
    """
    if peer is None:
        return list(precisions)
    return [f"{precision}{SEPARATOR}{peer} {kind}" for precision in precisions for kind in KINDS[peer][precision]]


def parts(case):
    """(our part, how the peer runs) of the name of a case; the second is "" without a peer."""
    ours, _, peer = case.partition(SEPARATOR)
    return ours, peer.partition(" ")[2]


def detecting(model, image, pasting=True, **facts):
    """A call of any model of this package on an image, to its facts.

    Args:
        model: an object with `detect` and `predictor`.
        image: uint8 `[H, W, 3]`.
        pasting: whether masks are pasted; otherwise the call ends with the arrays of the network.
        **facts: added to those of the call.
    """

    def whole():
        found = model.detect(image, score_threshold=SCORE_THRESHOLD)
        return {"detections": len(found["labels"]), "mask_shape": list(found["masks"].shape), **facts}

    def network():
        predictor = model.predictor
        batch = predictor.placement.batch([predictor.placement.pixels(image)], 1)
        found = predictor.network(batch, predictor.detection.limits(score_threshold=SCORE_THRESHOLD))
        count = int(found["valid"].sum())
        return {"detections": count, "mask_shape": [count, *found["masks"].shape[2:]], **facts}

    return whole if pasting else network


def add_arguments(parser, engines=False):
    """Adds the arguments of scripts that compare whole networks, also with inference engines where they can."""
    choices = (*MODULES, *(ENGINES if engines else ()))
    parser.add_argument("--peer", choices=choices, default="torchvision", help="default: %(default)s")
    add_precision(parser)


def add_precision(parser):
    """Adds the argument for `precisions`."""
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        metavar="NAME",
        help="of this package: float32, mixed_bfloat16 (default: both if the processor has bfloat16, else float32)",
    )


def precisions(options):
    """The precisions of the options, or those that are fast on this machine."""
    return options.precision or PRECISIONS[: 2 if machine.has_bfloat16() else 1]
