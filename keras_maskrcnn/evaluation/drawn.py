"""An image with its errors: ground truth beside detections, in the colours of what is right and what is wrong."""

import numpy as np

from keras_maskrcnn import visualize
from keras_maskrcnn.data.run_lengths import decode
from keras_maskrcnn.drawing.sheets import grid, titled, with_legend
from keras_maskrcnn.evaluation.errors import IGNORED, RIGHT
from keras_maskrcnn.evaluation.per_image import WORDS

ORANGE, SKY, GREEN, YELLOW, PURPLE, BLUE, RED = visualize.PALETTE
LABELLED = 30  # maximum number of objects with labels: more labels would hide the objects
TINTS = {
    RIGHT: GREEN,
    "missed": RED,
    "classification": BLUE,
    "localisation": YELLOW,
    "both": ORANGE,
    "duplicate": SKY,
    "background": PURPLE,
    IGNORED: visualize.GREY,
}


def draw_errors(pixels, image, errors, class_names):
    """Draws ground truth (left) and detections (right) of one image, with a legend of the colours.

    An object without a right detection has the colour of the error that a detection makes about it, or of "missed".

    Args:
        pixels: uint8 [H, W, 3].
        image: its `matching.ImageResult`, with the detections that are to be drawn.
        errors: its `errors.ImageErrors`.
        class_names: K names.

    Returns:
        uint8 [h, w, 3].
    """
    size, scale = pixels.shape[:2], visualize.fitting_scale(pixels)
    truth = _rows(image.objects, image.true_labels, size) | {"crowd": image.crowd}
    found = _rows(image.detections, image.labels, size) | {"scores": image.scores}
    sides = {
        "ground truth": (truth, np.where(image.crowd, IGNORED, object_kinds(errors)).tolist()),
        "detections": (found, errors.kinds.tolist()),
    }
    panels = []
    for title, (rows, kinds) in sides.items():
        tints = [TINTS[kind] for kind in kinds]
        shown = {"boxes": "masks" not in rows, "labels": len(kinds) <= LABELLED, "scale": scale}
        drawn = visualize.draw(pixels, rows, class_names, colour_by=tints, **shown)
        panels.append(titled(drawn, f"{title}: {len(kinds)}"))
    used = {kind for _, kinds in sides.values() for kind in kinds}
    legend = {WORDS.get(kind, kind): tint for kind, tint in TINTS.items() if kind in used}
    return with_legend(grid(panels, columns=2), legend)


def object_kinds(errors):
    """What becomes of each object: "right", the first error that a detection makes about it, or "missed"; list [m]."""
    kinds = ["missed"] * len(errors.matched)
    for kind, partner in zip(errors.kinds[::-1], errors.partner[::-1], strict=True):
        if partner >= 0 and kind in ("localisation", "classification"):
            kinds[partner] = str(kind)
    return [RIGHT if matched else kind for matched, kind in zip(errors.matched, kinds, strict=True)]


def _rows(rows, labels, size):
    """Objects or detections as `visualize.draw` takes them."""
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = all("segmentation" in row for row in rows)
    return {
        "boxes": boxes,
        "labels": labels,
        **({"masks": decode([row["segmentation"] for row in rows], size)} if masks else {}),
    }
