"""Step 12: regions cropped from the features of a trained network, at regular and random positions."""

import numpy as np
from keras import ops
from PIL import Image

from cis680_report.experiments import rounded
from cis680_report.page import Table
from keras_maskrcnn import plots, visualize
from keras_maskrcnn.layers.roi_align import RoIAlign
from keras_maskrcnn.ops.roi import assign_levels

BINS = (3, 7, 14, 28)
REGULAR, RANDOM = ([(positions, bins) for bins in BINS] for positions in ("regular", "random"))


def step_12(report, setup, model):
    """Regions of several P; returns the mean difference of random from regular samples by P."""
    samples = [setup.test[i] for i in range(min(100, len(setup.test)))]
    sample = max(samples[:30], key=lambda sample: len(sample["labels"]))
    pixels, boxes, features = _on_canvas(model, sample)
    rows = [_differences(features, boxes, bins) for bins in BINS]
    header = ["P", "shape of a region", "standard deviation", "random against regular", "one level against the pyramid"]
    pyramid = [_cell(plots.components(ops.convert_to_numpy(level)[0]), name, 300) for name, level in features.items()]
    report.step(
        12,
        samples=visualize.grid([_sampled(sample, rng) for rng in (None, np.random.default_rng(0))], columns=2),
        crops=_crops(pixels, boxes[:, :3], [*REGULAR, ("random", 7)], _pixels, columns=5),
        pyramid=visualize.grid(pyramid, columns=2),
        features=_crops(features, boxes[:, :1], [*REGULAR, *RANDOM], _magnitude, columns=4),
        differences=Table(header, rows),
        levels=_levels(samples, {"800 × 1066": (800, 1066), "this run": setup.canvas_b}),
    )
    return rounded({row[0]: row[3] for row in rows})


def _on_canvas(model, sample):
    """Image on the model's canvas {"P0": float32 [1, H, W, 3]}, boxes [1, n, 4] in its pixels, and its features."""
    batch = model.placement.batch([sample["image"]], rows=1)
    scale = batch["sizes"][0] / sample["image"].shape[:2]
    boxes = (sample["boxes"] * np.tile(scale[::-1], 2)).astype("float32")
    features = model.features(batch["images"], batch["sizes"])
    return {"P0": batch["images"]}, boxes[None], {level: features[level] for level in model.region_levels}


def _aligned(features, boxes, bins, positions="regular"):
    """Regions float32 [n, P, P, C] cropped from the given levels."""
    strides = tuple(2 ** int(level[1:]) for level in features)
    align = RoIAlign(bins, strides, positions=positions, seed=0)
    levels = [ops.cast(level, "float32") for level in features.values()]
    return ops.convert_to_numpy(align(levels, boxes, training=positions == "random"))[0]


def _differences(features, boxes, bins):
    """A row: P, shape, standard deviation, mean difference of random samples and of a single level."""
    regular = _aligned(features, boxes, bins)
    others = _aligned(features, boxes, bins, "random"), _aligned({"P4": features["P4"]}, boxes, bins)
    shape = " × ".join(map(str, regular.shape[1:]))
    return [bins, shape, float(regular.std()), *(float(np.abs(other - regular).mean()) for other in others)]


def _levels(samples, canvases):
    """Objects by the level that they are cropped from, for images of several sizes."""
    rows = []
    for name, canvas in canvases.items():
        boxes = [s["boxes"] * np.float32((np.array(canvas) / s["image"].shape[:2]).min()) for s in samples]
        levels = ops.convert_to_numpy(assign_levels(np.concatenate(boxes)))
        rows.append([name, *(int((levels == level).sum()) for level in range(2, 6))])
    return Table(["images", "P2", "P3", "P4", "P5"], rows)


def bins_and_samples(box, bins, rng=None):
    """Boxes [P², 4] of the bins of a box, and their samples [P², 4, 2] as (x, y), random with a NumPy Generator."""
    size = (box[2:] - box[:2]) / bins
    corners = box[:2] + np.stack(np.meshgrid(np.arange(bins), np.arange(bins)), axis=-1).reshape(-1, 2) * size
    inside = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    inside = inside if rng is None else rng.uniform(size=(bins**2, 4, 2))
    return np.concatenate([corners, corners + size], axis=1), corners[:, None] + inside * size


def _sampled(sample, rng):
    """The first object of an image with its 7 × 7 bins and their samples."""
    box = sample["boxes"][0]
    margin = 0.12 * (box[2:] - box[:2])
    (left, top), (right, bottom) = np.maximum(box[:2] - margin, 0).astype(int), (box[2:] + margin).astype(int)
    bins, samples = bins_and_samples(box - [left, top, left, top], 7, rng)
    groups = [("bins", bins, visualize.YELLOW, 1), ("samples", samples.reshape(-1, 2), visualize.CYAN, 5)]
    image = visualize.outline(sample["image"][top:bottom, left:right], groups)
    return visualize.titled(image, "regular" if rng is None else "random")


def _crops(features, boxes, kinds, colour, columns):
    """Boxes [1, n, 4] cropped with several (positions, P), as one image; `colour` maps a region to uint8 [P, P, 3]."""
    cells = []
    for box in boxes[0]:
        for positions, bins in kinds:
            region = _aligned(features, box[None, None], bins, positions)[0]
            cells.append(_cell(colour(region), f"P = {bins}, {positions}"))
    return visualize.grid(cells, columns)


def _pixels(region):
    return np.rint(np.clip(region, 0, 255)).astype(np.uint8)


def _magnitude(region):
    return plots.shaded(np.abs(region).mean(axis=-1))


def _cell(image, title, side=220):
    """An image resized to a longer side of `side` pixels, with a title."""
    size = [max(1, round(extent * side / max(image.shape[:2]))) for extent in image.shape[1::-1]]
    return visualize.titled(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST)), title)
