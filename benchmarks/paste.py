"""Pasting 100 masks of 28x28 into an image of 800x1066 pixels: this package against torchvision.

    python benchmarks/paste.py --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION

Without `--peer-python` only this package is timed. Both sides start with probabilities and boxes and end with 100 bool
masks of the image's size, by torchvision's rule, which truncates boxes to whole pixels, so that pixel counts can be
compared. This package is also timed with its exact rule.
"""

import numpy as np
import pairs

COUNT, CELLS, HEIGHT, WIDTH = 100, 28, 800, 1066
BOXES = ("boxes of all sizes", "boxes as large as the picture")
RULES = {"torchvision's rule": "whole_pixels", "exact rule": "continuous"}


def inputs(kind):
    """Probabilities [100, 28, 28], a blob in each mask, and boxes [100, 4] clipped to the image."""
    rng = np.random.default_rng(0)
    grid = (np.arange(CELLS) + 0.5) / CELLS
    centre, radius = rng.uniform(0.4, 0.6, (2, COUNT, 1, 1)), rng.uniform(0.3, 0.5, (2, COUNT, 1, 1))
    distance = ((grid[:, None] - centre[0]) / radius[0]) ** 2 + ((grid - centre[1]) / radius[1]) ** 2
    masks = 1 / (1 + np.exp(4 * (distance - 1) + rng.normal(0, 0.5, distance.shape)))
    frame = [WIDTH, HEIGHT]
    if kind == BOXES[1]:
        return masks.astype("float32"), np.tile(np.array([0, 0, *frame], "float32"), (COUNT, 1))
    # The median side is 100 pixels; one box in six is larger than 300.
    side = np.exp(rng.normal(np.log(100), 1.1, (COUNT, 2))).clip(8, frame)
    corner = rng.uniform(0, 1, (COUNT, 2)) * (np.array(frame) - side)
    return masks.astype("float32"), np.concatenate([corner, corner + side], axis=1).astype("float32")


def ours(kind, rule):
    """The call of one case on this package, and its repeats."""
    from keras_maskrcnn.ops.masks import paste

    masks, boxes = inputs(kind)

    def call():
        return facts(paste(masks, boxes, (HEIGHT, WIDTH), how=RULES[rule]))

    return call, 5


def peer(kind, rule):
    """The call of one case on torchvision, or None for a rule that it does not have."""
    if RULES[rule] != "whole_pixels":
        return None
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    masks, boxes = (torch.from_numpy(array) for array in inputs(kind))

    def call():
        return facts((paste_masks_in_image(masks[:, None], boxes, (HEIGHT, WIDTH)) >= 0.5)[:, 0].numpy())

    return call, 2


def facts(pasted):
    """Number of masks, and pixels of the first ones: counting all would take longer than pasting."""
    return {"masks": len(pasted), "pixels": [int(np.count_nonzero(mask)) for mask in pasted[:5]]}


def check(ours, peer):
    """None, or a line about different work of the sides; rounding may change a few pixels at the threshold."""
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
        pairs.compare(__file__, options, names, check=check)
        return
    side = ours if options.worker == "ours" else peer
    pairs.serve(lambda name: side(*name.split("; ")))


if __name__ == "__main__":
    main()
