"""Non-maximum suppression of this package against torchvision's.

    python benchmarks/nms.py --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION --output benchmarks/results/nms.json

Without `--peer-python` only this package is timed. Both sides start with boxes and scores and end with the kept rows,
whose number must be equal in every image.

    python benchmarks/nms.py --fast

times Fast NMS ("ours") against the exact one of this package ("peer"), both compiled by XLA, where the exact one is a
loop. With `--implementations auto` on a CPU the exact one is TensorFlow's kernel, which takes about the same time.
"""

import sys

import numpy as np
import pairs

# Name: (images, rows, groups, IoU threshold, results per image, score threshold).
CASES = {
    "proposals, 4 levels x 1000": (1, 4000, 4, 0.7, 1000, 0.0),
    "proposals, 8 images, 4 x 200": (8, 800, 4, 0.7, 200, 0.0),
    "detections, 2000 rows of 80 classes": (1, 2000, 80, 0.5, 100, 0.05),
    "detections, 8 images, 600 rows of 3": (8, 600, 3, 0.5, 100, 0.05),
}
# One-stage detection takes the same (anchor, class) pairs: `Detection.candidates` of them.
FAST_CASES = {
    "detections, 1000 rows of 80 classes": (1, 1000, 80, 0.5, 100, 0.05),
    "detections, 8 images, 1000 rows of 80": (8, 1000, 80, 0.5, 100, 0.05),
    "detections, 1000 rows of 3 classes": (1, 1000, 3, 0.5, 100, 0.05),
}


def inputs(images, rows, groups):
    """Boxes [B, N, 4] around a few objects, scores and groups [B, N]; with many groups few scores are high."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 800, (images, 40, 4)) * (1, 1, 0.25, 0.25) + (0, 0, 20, 20)
    chosen = np.take_along_axis(places, rng.integers(0, 40, (images, rows))[..., None], axis=1)
    chosen = chosen + rng.normal(0, 8, chosen.shape)
    boxes = np.concatenate([chosen[..., :2], chosen[..., :2] + np.maximum(chosen[..., 2:], 2)], axis=-1)
    scores = rng.uniform(0, 1, (images, rows)) ** (3 if groups > 10 else 1)
    return boxes.astype("float32"), scores.astype("float32"), rng.integers(0, groups, (images, rows)).astype("int32")


def ours(case, implementation, suppress="nms"):
    """The call of one case on this package.

    Args:
        case: one of the rows above.
        implementation: `auto`, or `xla` for the compiled static form.
        suppress: `nms` or `fast_nms`, the function's name.
    """
    import tensorflow as tf

    from keras_maskrcnn.backend import nms as functions

    images, rows, groups, threshold, results, minimum = case
    arrays = [tf.constant(a) for a in inputs(images, rows, groups)]

    @tf.function(jit_compile=implementation == "xla")
    def run(boxes, scores, group):
        return getattr(functions, suppress)(boxes, scores, threshold, results, group, valid=scores > minimum)

    def call():
        _, valid = (tensor.numpy() for tensor in run(*arrays))
        return {"kept": valid.sum(axis=1).tolist()}

    return call, 5


def peer(case):
    """The call of one case on torchvision, image by image as in its detector."""
    import torch
    from torchvision.ops import batched_nms

    images, rows, groups, threshold, results, minimum = case
    arrays = [torch.from_numpy(a) for a in inputs(images, rows, groups)]

    def one_image(boxes, scores, group):
        above = torch.where(scores > minimum)[0]
        return above[batched_nms(boxes[above], scores[above], group[above], threshold)[:results]]

    def call():
        return {"kept": [len(one_image(*rows)) for rows in zip(*arrays, strict=True)]}

    return call, 5


def check(ours, peer):
    """None, or a line about a difference between the work of both sides."""
    return None if ours == peer else f"ours kept {ours['kept']} rows, the peer {peer['kept']}"


def check_fast(fast, exact):
    """None, or a line if Fast NMS keeps more rows than the exact one."""
    more = any(one > other for one, other in zip(fast["kept"], exact["kept"], strict=True))
    return f"Fast NMS kept {fast['kept']} rows, the exact one {exact['kept']}" if more else None


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    parser = pairs.arguments(__doc__, 9)
    chosen = "comma-separated implementations of this package: auto, xla (default: auto; with --fast xla)"
    parser.add_argument("--implementations", help=chosen)
    parser.add_argument("--fast", action="store_true", help="time Fast NMS against the exact one, both of this package")
    options = parser.parse_args()
    cases = FAST_CASES if options.fast else CASES
    if options.worker is None:
        implementations = options.implementations or ("xla" if options.fast else "auto")
        asked = [f"{name}; {i}" for name in cases for i in implementations.split(",")]
        if options.fast:
            options.peer_python = sys.executable
            pairs.compare(__file__, options, asked, check=check_fast, words=["--fast"], peer_name="exact NMS")
        else:
            pairs.compare(__file__, options, asked, check=check)
        return

    def case(name):
        size, implementation = name.split("; ")
        if options.fast:
            return ours(cases[size], implementation, "fast_nms" if options.worker == "ours" else "nms")
        return ours(cases[size], implementation) if options.worker == "ours" else peer(cases[size])

    pairs.serve(case)


if __name__ == "__main__":
    main()
