"""Generated images with objects, the same for every side of a comparison, and the measured network.

The images need NumPy only. The weights of the network are those of `tests/parity/generated.py`: with them an image has
some dozens of detections, as with trained weights, while random initial weights detect nothing or everything.
"""

import sys

import numpy as np
import pairs

MASK_SIZE = 112
SMALLEST = 12


def scene(height, width, objects, seed=0):
    """An image of filled rectangles on a smooth background.

    Args:
        height: pixels.
        width: pixels.
        objects: number of rectangles; later ones cover earlier ones.
        seed: int.

    Returns:
        (image, boxes): uint8 `[H, W, 3]`, and float32 `[n, 4]` x1, y1, x2, y2 in whole pixels.
    """
    rng = np.random.default_rng(seed)
    ground = rng.uniform(60, 190, (-(-height // 32), -(-width // 32), 3)).repeat(32, axis=0).repeat(32, axis=1)
    image = ground[:height, :width] + rng.normal(0, 8, (height, width, 3))
    largest = max(min(height, width) // 2, SMALLEST + 1)
    sides = np.exp(rng.uniform(np.log(SMALLEST), np.log(largest), (objects, 2))).astype(int)
    corners = np.floor(rng.uniform(0, 1, (objects, 2)) * (np.array([width, height]) - sides)).astype(int)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = rng.uniform(0, 255, 3) + rng.normal(0, 8, (y2 - y1, x2 - x1, 3))
    return np.clip(image, 0, 255).astype("uint8"), boxes.astype("float32")


def labels_of(count, classes, seed=0):
    """Random classes 1…K of objects: int32 `[n]`."""
    return np.random.default_rng(seed).integers(1, classes + 1, count).astype("int32")


def training_batch(batch, size, canvas, objects, classes):
    """A batch in the format of `data.batches`; every instance is a rectangle that fills its box.

    Args:
        batch: number of images.
        size: (height, width) of the images.
        canvas: (height, width) of the network's input, at least `size`.
        objects: instances per image, and rows of the targets.
        classes: classes without background.

    Returns:
        (x, y): dicts of arrays.
    """
    drawn, boxes = zip(*(scene(*size, objects, seed) for seed in range(batch)), strict=True)
    images = np.zeros((batch, *canvas, 3), "uint8")
    images[:, : size[0], : size[1]] = drawn
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
    """The module that generates weights under torchvision's names."""
    folder = str(pairs.ROOT / "tests" / "parity")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import generated

    return generated


# A network of about ten thousand weights, for tests of the benchmarks.
TINY = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "group"},
    "fpn_channels": 16,
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,))},
    "box_stage": {"width": 16},
    "mask_stage": {"width": 8, "depth": 1},
}


def network(tiny=False, classes=90, **overrides):
    """Our ResNet-50-FPN in torchvision's layout with the generated weights, or the tiny network with random weights.

    Args:
        tiny: whether the network is the tiny one.
        classes: classes without background; layers that depend on it stay random if it is not 90.
        **overrides: arguments of `MaskRCNN`.
    """
    from keras_maskrcnn import MaskRCNN

    if tiny:
        return MaskRCNN(classes, **{**TINY, **overrides})
    from keras_maskrcnn.weights import assign

    model = MaskRCNN.from_preset("mask_rcnn_resnet50_fpn", num_classes=classes, **overrides)
    assign.fill(model, generated().weights("v1"), "torchvision", "generated weights")
    return model
