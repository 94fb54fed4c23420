"""The libraries that ours is timed against, one module each, which imports its library when it is asked for a case.

Each module has `inference(kind, picture)`, `training(kind, x, y)` and, torchvision's, `folder(kind, paths, threshold)`,
which return what `pairs.serve` takes. Pictures are uint8 `[H, W, 3]`; x and y are of `scenes.training_batch`.
"""

import importlib

import machine

# How each library is run, by the precision of ours that this is compared with.
KINDS = {
    "torchvision": {
        "float32": ("float32 eager", "float32 channels-last"),
        "mixed_bfloat16": ("bfloat16 channels-last", "float32 eager"),
    },
    "model-garden": {"float32": ("float32 graph",), "mixed_bfloat16": ("bfloat16 graph",)},
}
MODULES = {"torchvision": "torchvision_maskrcnn", "model-garden": "model_garden"}
PRECISIONS = ("float32", "mixed_bfloat16")
SEPARATOR = "; "

# What all sides are told: rectangles drawn into a picture of either kind, and the numbers of detector and optimizer.
OBJECTS, TRAINING_OBJECTS = 30, 8
SCORE_THRESHOLD = 0.05
# With so low a rate the weights stay what they are, and every step does the same work.
RATE, MOMENTUM = 1e-6, 0.9
# Regions a picture that TF Model Garden puts through its mask head, which takes a fixed number: as many as ours has.
MASK_ROIS = 13


def load(peer):
    """The module of a peer."""
    return importlib.import_module(f"peers.{MODULES[peer]}")


def cases(precisions, peer=None):
    """Names of cases, each the precision of ours and, if there is a peer, how that is run.

    Args:
        precisions: some of `PRECISIONS`.
        peer: one of `MODULES`, or None.
    """
    if peer is None:
        return list(precisions)
    return [f"{precision}{SEPARATOR}{peer} {kind}" for precision in precisions for kind in KINDS[peer][precision]]


def parts(case):
    """Of a case's name, what is ours and how the peer is run: two strings, the second empty where there is no peer."""
    ours, _, peer = case.partition(SEPARATOR)
    return ours, peer.partition(" ")[2]


def add_arguments(parser):
    """What the scripts take that compare whole networks."""
    parser.add_argument("--peer", choices=tuple(MODULES), default="torchvision", help="default: %(default)s")
    add_precision(parser)


def add_precision(parser):
    """The argument that `precisions` reads."""
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        metavar="NAME",
        help="of ours: float32, mixed_bfloat16 (default: both where the processor has bfloat16, else float32)",
    )


def precisions(options):
    """Those asked for, or those that this machine computes fast."""
    return options.precision or PRECISIONS[: 2 if machine.has_bfloat16() else 1]
