"""Step 12: regions cropped from the features of a trained network, at regular and random positions."""

import numpy as np
from keras import ops
from PIL import Image

from cis680_report.experiments import rounded
from cis680_report.page import Table
from keras_maskrcnn import plots, visualize
from keras_maskrcnn.layers.roi_align import RoIAlign
from keras_maskrcnn.ops import images as image_ops
from keras_maskrcnn.ops.roi import assign_levels

BINS = (3, 7, 14, 28)


def step_12(report, setup, model):
    """Regions of several P; returns the mean difference of random from regular samples by P."""
    samples = [setup.test[i] for i in range(min(100, len(setup.test)))]
    sample = max(samples[:30], key=lambda sample: len(sample["labels"]))
    canvas, boxes, features = _on_canvas(model, sample)
    rows = [_differences(features, boxes, bins) for bins in BINS]
    header = ["P", "shape of a region", "standard deviation", "random against regular", "one level against the pyramid"]
    report.step(
        12,
        bins=model.box_stage.pool,
        samples=visualize.grid([_sampled(sample, rng) for rng in (None, np.random.default_rng(0))], columns=2),
        crops=_crops(canvas, boxes),
        pyramid=_pyramid(features),
        features=_feature_crops(features, boxes[:, :1]),
        differences=Table(header, rows),
        levels=_levels(samples, {"800 × 1066": (800, 1066), "this run": setup.canvas_b}),
    )
    return rounded({row[0]: row[3] for row in rows})


def _on_canvas(model, sample):
    """Image on the model's canvas {"P0": float32 [1, H, W, 3]}, boxes [1, n, 4] in its pixels, and its features."""
    size, (_, fitted) = sample["image"].shape[:2], model.place(sample["image"].shape[:2])
    canvas = np.zeros((1, *model.image_size, 3), "float32")
    canvas[0, : fitted[0], : fitted[1]] = ops.convert_to_numpy(image_ops.fit(sample["image"], fitted, True))
    boxes = sample["boxes"] * np.array([fitted[1] / size[1], fitted[0] / size[0]] * 2, "float32")
    features = model.features(canvas, np.array([fitted], "float32"))
    return {"P0": canvas}, boxes[None], {level: features[level] for level in model.region_levels}


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
    """Objects by the level that they are cropped from, for images of two sizes."""
    rows = []
    for name, canvas in canvases.items():
        boxes = [s["boxes"] * np.float32((np.array(canvas) / s["image"].shape[:2]).min()) for s in samples]
        levels = ops.convert_to_numpy(assign_levels(np.concatenate(boxes)))
        rows.append([name, *(int((levels == level).sum()) for level in range(2, 6))])
    return Table(["images", "P2", "P3", "P4", "P5"], rows)


def sample_points(box, bins, rng=None):
    """The 2 × 2 samples of each bin: float64 [bins · bins · 4, 2] as (x, y), random in their bins with a Generator."""
    low, size = np.array(box[:2]), (np.array(box[2:]) - box[:2]) / bins
    corners = np.stack(np.meshgrid(np.arange(bins), np.arange(bins)), axis=-1).reshape(-1, 1, 2)
    inside = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    inside = inside if rng is None else rng.uniform(size=(bins * bins, 4, 2))
    return (low + (corners + inside) * size).reshape(-1, 2)


def _sampled(sample, rng, bins=7):
    """The first object with its bins and their samples: uint8 image."""
    box = np.asarray(sample["boxes"][0], np.float64)
    left, top = np.maximum(box[:2] - 0.12 * np.ptp(box.reshape(2, 2), axis=0), 0).astype(int)
    right, bottom = (box[2:] + 0.12 * np.ptp(box.reshape(2, 2), axis=0)).astype(int) + 1
    box -= [left, top, left, top]
    corners = np.stack(np.meshgrid(*[np.arange(bins)] * 2), axis=-1).reshape(-1, 2) * (box[2:] - box[:2]) / bins
    lines = np.concatenate([box[:2] + corners, box[:2] + corners + (box[2:] - box[:2]) / bins], axis=1)
    groups = [("bins", lines, visualize.YELLOW, 1), ("samples", sample_points(box, bins, rng), visualize.CYAN, 3)]
    image = visualize.outline(sample["image"][top:bottom, left:right], groups)
    return visualize.titled(image, "regular" if rng is None else "random")


def _crops(canvas, boxes, count=3):
    """Boxes cropped from pixels, one row per box: every P at regular positions, one at random ones."""
    kinds, cells = [*((bins, "regular") for bins in BINS), (7, "random")], []
    for box in boxes[0, :count]:
        for bins, kind in kinds:
            pixels = np.clip(np.rint(_aligned(canvas, box[None, None], bins, kind)[0]), 0, 255).astype(np.uint8)
            cells.append(_cell(pixels, f"P = {bins}, {kind}"))
    return visualize.grid(cells, columns=len(kinds))


def _feature_crops(features, boxes):
    """A box cropped from the features with every P, regular above random: uint8 image."""
    cells = [
        _cell(plots.shaded(np.abs(_aligned(features, boxes, bins, kind)[0]).mean(axis=-1)), f"P = {bins}, {kind}")
        for kind in ("regular", "random")
        for bins in BINS
    ]
    return visualize.grid(cells, columns=len(BINS))


def _pyramid(features):
    """The levels side by side, principal components as colours: uint8 image."""
    levels = {name: ops.convert_to_numpy(level)[0] for name, level in features.items()}
    cells = [
        _cell(plots.components(level), f"{name}: {' x '.join(map(str, level.shape))}", 300)
        for name, level in levels.items()
    ]
    return visualize.grid(cells, columns=3)


def _cell(image, title, side=220):
    """An image resized to a longer side of `side` pixels, with a title."""
    factor = side / max(image.shape[:2])
    size = [max(1, round(extent * factor)) for extent in image.shape[1::-1]]
    way = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BILINEAR
    return visualize.titled(np.asarray(Image.fromarray(image).resize(size, way)), title)
