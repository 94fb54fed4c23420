"""Pasting 100 masks of 28x28 into a picture of 800x1066 pixels: this package against torchvision.

    python benchmarks/paste.py --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION

Without `--peer-python` only ours is timed. Both sides start from probabilities and boxes and end with 100 masks of bool
of the picture's size, by torchvision's rule, which cuts boxes to whole pixels, so that the pixels can be counted
against each other; ours is timed with its own exact rule as well.
"""

import numpy as np
import pairs

COUNT, CELLS, HEIGHT, WIDTH = 100, 28, 800, 1066
BOXES = ("boxes of all sizes", "boxes as large as the picture")
RULES = {"torchvision's rule": "whole_pixels", "exact rule": "continuous"}


def inputs(kind):
    """Probabilities [100, 28, 28], a blob in each mask, and boxes [100, 4] clipped to the picture."""
    rng = np.random.default_rng(0)
    grid = (np.arange(CELLS) + 0.5) / CELLS
    centre, radius = rng.uniform(0.4, 0.6, (2, COUNT, 1, 1)), rng.uniform(0.3, 0.5, (2, COUNT, 1, 1))
    distance = ((grid[:, None] - centre[0]) / radius[0]) ** 2 + ((grid - centre[1]) / radius[1]) ** 2
    masks = 1 / (1 + np.exp(4 * (distance - 1) + rng.normal(0, 0.5, distance.shape)))
    frame = [WIDTH, HEIGHT]
    if kind == BOXES[1]:
        return masks.astype("float32"), np.tile(np.array([0, 0, *frame], "float32"), (COUNT, 1))
    # The middle of the sides is 100 pixels; one box in six is larger than 300.
    side = np.exp(rng.normal(np.log(100), 1.1, (COUNT, 2))).clip(8, frame)
    corner = rng.uniform(0, 1, (COUNT, 2)) * (np.array(frame) - side)
    return masks.astype("float32"), np.concatenate([corner, corner + side], axis=1).astype("float32")


def ours(kind, rule):
    """Call of one case on this package."""
    from keras_maskrcnn.ops.masks import paste

    masks, boxes = inputs(kind)

    def call():
        return facts(paste(masks, boxes, (HEIGHT, WIDTH), how=RULES[rule]))

    return call, 5


def peer(kind, rule):
    """Call of one case on torchvision, which has one rule."""
    if RULES[rule] != "whole_pixels":
        return None
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    masks, boxes = (torch.from_numpy(array) for array in inputs(kind))

    def call():
        return facts((paste_masks_in_image(masks[:, None], boxes, (HEIGHT, WIDTH)) >= 0.5)[:, 0].numpy())

    return call, 2


def facts(pasted):
    """How many masks there are and what the first ones cover; counting all of them would take longer than pasting."""
    return {"masks": len(pasted), "pixels": [int(np.count_nonzero(mask)) for mask in pasted[:5]]}


def check(ours, peer):
    """Why the sides did not do the same work, or None; rounding may turn over a few pixels at the threshold."""
    if ours["masks"] != peer["masks"]:
        return f"ours pasted {ours['masks']} masks, the peer {peer['masks']}"
    for index, counts in enumerate(zip(ours["pixels"], peer["pixels"], strict=True)):
        if abs(counts[0] - counts[1]) > 2 + 0.001 * max(counts):
            return f"mask {index} covers {counts[0]} pixels in ours, {counts[1]} in the peer's"
    return None


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    options = pairs.arguments(__doc__, rounds=9).parse_args()
    if options.worker is None:
        names = [f"{kind}; {rule}" for rule in RULES for kind in BOXES]
        pairs.compare(__file__, names, options.peer_python, options.rounds, output=options.output, check=check)
        return
    side = ours if options.worker == "ours" else peer
    pairs.serve(lambda name: side(*name.split("; ")))


if __name__ == "__main__":
    main()
