"""One compiled step takes 2,000 hostile samples: loss and gradients stay finite, and no step is skipped."""

from unittest import mock

import keras
import numpy as np
import pytest

from keras_maskrcnn import data

BATCH, SLOTS = 16, 100
TINY = {
    "backbone": {"name": "simple_cnn", "channels": [4, 4, 8, 8], "norm": "group"},
    "fpn_channels": 8,
    "anchors": {"sizes": ((12,), (24,), (48,), (96,)), "ratios": (1.0,)},
    "proposals": {"pre_nms": 20, "post_nms": 20},
    "box_stage": {"width": 8, "pool": 3},
    "mask_stage": {"width": 4, "depth": 1, "pool": 4},
}


def scattered(rng, size, count, low, high):
    """Boxes with sides of `low` to `high` pixels, inside an image of `size` (height, width)."""
    limit = np.array(size[::-1], float)
    sides = np.minimum(rng.uniform(low, high, (count, 2)), limit)
    corner = rng.uniform(0, 1, (count, 2)) * (limit - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def single_pixels(rng, size):
    """Pixels in the first and the last corner, and somewhere."""
    height, width = size
    x, y = rng.integers(width), rng.integers(height)
    return [(0, 0, 1, 1), (width - 1, height - 1, width, height), (x, y, x + 1, y + 1)]


# Functions of a generator and the size (height, width) of an image that return boxes.
OBJECTS = {
    "none": lambda rng, size: [],
    "single pixels": single_pixels,
    "parts of a pixel": lambda rng, size: scattered(rng, size, 6, 1e-3, 0.5),
    "almost no width": lambda rng, size: [(0.25, 0.25, 0.25 + 1e-6, min(size) / 2)],
    "lines": lambda rng, size: [(0, 0, size[1], 1), (0, 0, 1, size[0])],
    "whole image": lambda rng, size: [(0, 0, size[1], size[0])],
    "over the border": lambda rng, size: [(-0.9, -0.9, size[1] + 0.9, size[0] + 0.9), (-0.9, 0, 1e-3, 1)],
    "identical": lambda rng, size: np.repeat(scattered(rng, size, 1, 1, 30), 60, axis=0),
    "nested": lambda rng, size: [(0, 0, size[1] * share, size[0] * share) for share in np.linspace(0.01, 1, 30)],
    "a hundred": lambda rng, size: scattered(rng, size, 100, 1, 40),
    "375": lambda rng, size: scattered(rng, size, 375, 1, 20),
    "usual": lambda rng, size: scattered(rng, size, rng.integers(1, 8), 5, 40),
}
# The long ones are about a pixel wide on the canvas; objects on the large one have a fifth of their size there.
SIZES = [(64, 64), (48, 64), (64, 7), (1, 1), (1, 300), (500, 2), (240, 320)]


class Hostile(data.Dataset):
    """Samples that the contract allows: all pairs of `OBJECTS` and `SIZES` in turn, with random masks and crowds."""

    class_names = ("a", "b", "c")

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, position):
        rng = np.random.default_rng(position)
        size, kind = SIZES[position % len(SIZES)], list(OBJECTS)[position // len(SIZES) % len(OBJECTS)]
        boxes = np.array(OBJECTS[kind](rng, size), np.float32).reshape(-1, 4)
        count = len(boxes)
        images = [rng.integers(0, 256, (*size, 3), np.uint8), *(np.full((*size, 3), v, np.uint8) for v in (0, 255))]
        return {
            "image": images[rng.integers(3)],
            "boxes": boxes,
            "labels": rng.integers(1, 4, count),
            "masks": masks(rng, boxes, size),
            "crowd": rng.random(count) < rng.choice([0, 0, 0.3, 1]),
            "image_id": position,
            "source": f"{count} objects ({kind}) in {size[1]} x {size[0]} pixels",
        }


def masks(rng, boxes, size):
    """For all boxes the pixels that they touch, the whole image, or one pixel that need not be in the box."""
    result, kind = np.zeros((len(boxes), *size), bool), rng.integers(3)
    for mask, (x1, y1, x2, y2) in zip(result, boxes, strict=True):
        inside = np.s_[int(max(y1, 0)) : int(np.ceil(y2)), int(max(x1, 0)) : int(np.ceil(x2))]
        mask[[inside, np.s_[:], (rng.integers(size[0]), rng.integers(size[1]))][kind]] = True
    return result


def broken(y, rng):
    """Targets that no reader returns: boxes without area, reversed, outside or huge; anything in padding."""
    valid = y["valid"]
    x1, y1, x2, y2 = np.moveaxis(y["boxes"], -1, 0)
    far = np.full_like(x1, 1e6)
    corners = [
        (x1, y1, x2, y2),
        (x1, y1, x1, y2),
        (x1, y1, x1, y1),
        (x2, y2, x1, y1),
        (x1 + 500, y1, x2 + 500, y2),
        (-far, -far, far, far),
    ]
    kinds = np.stack([np.stack(four, axis=-1) for four in corners])
    boxes = np.take_along_axis(kinds, rng.integers(len(kinds), size=(1, *valid.shape, 1)), axis=0)[0]
    padding = rng.choice(np.float32([0, 7, -1e30, np.inf, np.nan]), boxes.shape)
    return {
        **y,
        "boxes": np.where(valid[..., None], boxes, padding),
        "labels": np.where(valid, y["labels"], rng.integers(4, size=valid.shape, dtype=np.int32)),
        "crowd": np.where(valid, y["crowd"], rng.random(valid.shape) < 0.5),
    }


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        ("float32", 192),
        *(pytest.param(policy, 2000, marks=pytest.mark.slow) for policy in ("float32", "mixed_bfloat16")),
    ],
)
def test_no_hostile_sample_stops_the_training(tiny, policy, count):
    batches = data.batches(Hostile(count), (64, 64), BATCH, SLOTS, mask_size=14, backend="numpy")
    model = tiny(**TINY, dtype=policy)
    model.compile(keras.optimizers.SGD(1e-3), jit_compile=True)
    with mock.patch.object(model, "features", wraps=model.features) as traced:
        for number in range(batches.num_batches):
            x, y = batches[number]
            if number % 2:
                y = broken(y, np.random.default_rng(number))
            model.reset_metrics()
            logs = model.train_on_batch(x, y, return_dict=True)
            assert logs["skipped_steps"] == 0, number
            assert all(np.isfinite(value) for value in logs.values()), (number, logs)
    assert traced.call_count == 1
    assert int(model.optimizer.iterations) == count // BATCH == batches.num_batches
    assert not batches.rows.dataset.skipped
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
