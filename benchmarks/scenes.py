"""Pictures with objects, made from a seed: every side of a comparison makes the same ones. Needs NumPy alone.

Also the network whose cost is measured: weights that were never trained find nothing or everything, so the ones drawn
in `tests/parity/generated.py` stand in, with which a picture yields some dozens of detections, as trained ones would.
"""

import sys

import numpy as np
import pairs

MASK_SIZE = 112
SMALLEST = 12


def scene(height, width, objects, seed=0):
    """A picture of filled rectangles on a soft ground.

    Args:
        height: pixels.
        width: pixels.
        objects: number of rectangles; later ones cover earlier ones.
        seed: int.

    Returns:
        (picture, boxes): uint8 `[H, W, 3]`, and float32 `[n, 4]` x1, y1, x2, y2 in whole pixels.
    """
    rng = np.random.default_rng(seed)
    ground = rng.uniform(60, 190, (-(-height // 32), -(-width // 32), 3)).repeat(32, axis=0).repeat(32, axis=1)
    picture = ground[:height, :width] + rng.normal(0, 8, (height, width, 3))
    largest = max(min(height, width) // 2, SMALLEST + 1)
    sides = np.exp(rng.uniform(np.log(SMALLEST), np.log(largest), (objects, 2))).astype(int)
    corners = np.floor(rng.uniform(0, 1, (objects, 2)) * (np.array([width, height]) - sides)).astype(int)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    for x1, y1, x2, y2 in boxes:
        picture[y1:y2, x1:x2] = rng.uniform(0, 255, 3) + rng.normal(0, 8, (y2 - y1, x2 - x1, 3))
    return np.clip(picture, 0, 255).astype("uint8"), boxes.astype("float32")


def labels_of(count, classes, seed=0):
    """Classes 1…K of some objects: int32 `[n]`."""
    return np.random.default_rng(seed).integers(1, classes + 1, count).astype("int32")


def training_batch(batch, size, canvas, objects, classes):
    """A batch as `data.batches` makes it, every slot a rectangle that fills its box.

    Args:
        batch: pictures.
        size: (height, width) of the pictures.
        canvas: (height, width) of the network's input, not smaller.
        objects: instances a picture, which are also the rows of the targets.
        classes: classes without background.

    Returns:
        (x, y): dicts of arrays.
    """
    pictures, boxes = zip(*(scene(*size, objects, seed) for seed in range(batch)), strict=True)
    images = np.zeros((batch, *canvas, 3), "uint8")
    images[:, : size[0], : size[1]] = pictures
    x = {
        "images": images,
        "sizes": np.full((batch, 2), size, "float32"),
        "image_index": np.arange(batch, dtype="int32"),
    }
    y = {
        "boxes": np.stack(boxes),
        "labels": np.stack([labels_of(objects, classes, seed) for seed in range(batch)]),
        "masks": np.full((batch, objects, MASK_SIZE, MASK_SIZE), 255, "uint8"),
        "crowd": np.zeros((batch, objects), bool),
        "valid": np.ones((batch, objects), bool),
    }
    return x, y


def generated():
    """The module that draws weights in torchvision's names."""
    folder = str(pairs.ROOT / "tests" / "parity")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import generated

    return generated


# A network of some ten thousand weights, so that a benchmark can be tried out and tested.
TINY = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "group"},
    "fpn_channels": 16,
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,))},
    "box_stage": {"width": 16},
    "mask_stage": {"width": 8, "depth": 1},
}


def network(tiny=False, classes=90, **overrides):
    """Our ResNet-50-FPN as torchvision has it with the generated weights, or the tiny one with random weights.

    Args:
        tiny: which of the two.
        classes: without background; the layers that depend on it stay random if there are not 90.
        **overrides: arguments of `MaskRCNN`.
    """
    from keras_maskrcnn import MaskRCNN

    if tiny:
        return MaskRCNN(classes, **{**TINY, **overrides})
    from keras_maskrcnn.weights import assign

    model = MaskRCNN.from_preset("mask_rcnn_resnet50_fpn", num_classes=classes, **overrides)
    assign.fill(model, generated().weights("v1"), "torchvision", "generated weights")
    return model
