"""Makes roi_align.npz, roi_pool.npz and nms.npz: what torchvision answers on inputs drawn by a seeded NumPy generator.

Run it in an environment with torch and torchvision (made with torch 2.13, torchvision 0.28):

    python tests/golden/make_roi_align.py

Features are multiples of 1/16, so that the files compress. Boxes are whole and broken numbers, inside, on the border,
partly and fully outside, under a pixel and without area.
"""

import pathlib

import numpy as np
import torch
from torch.nn.functional import max_pool2d
from torchvision.ops import MultiScaleRoIAlign, batched_nms, roi_align, roi_pool

HERE = pathlib.Path(__file__).parent
HEIGHT, WIDTH, CHANNELS, BATCH, ROWS = 96, 128, 2, 2, 36


def draw_boxes(rng, rows):
    """Boxes of every awkward kind around a HEIGHT×WIDTH image, float32 [rows, 4]."""
    centre = rng.uniform((-10, -10), (WIDTH + 10, HEIGHT + 10), (rows, 2))
    side = np.exp(rng.uniform(np.log(0.3), np.log(200), (rows, 2)))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    third = rows // 3
    boxes[:third] = np.round(boxes[:third])
    clipped = slice(third, third + third // 2)
    boxes[clipped] = np.clip(boxes[clipped], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes[0] = [0, 0, WIDTH, HEIGHT]
    boxes[1] = [WIDTH - 4, HEIGHT - 4, WIDTH, HEIGHT]
    boxes[2] = [-300, -300, -200, -250]
    boxes[3] = [10, 10, 10, 10]
    boxes[4] = [50, 40, 20, 10]
    boxes[5] = [-8, -8, 104, 104]
    boxes[6] = [WIDTH + 3, 5, WIDTH + 40, 60]
    return boxes.astype("float32")


def with_gradients(align, features, cotangent):
    """Output of `align(tensors)` and the gradients of Σ output · cotangent, all channels last."""
    tensors = [torch.from_numpy(f.transpose(0, 3, 1, 2).copy()).requires_grad_() for f in features]
    output = align(tensors)
    (output * torch.from_numpy(cotangent.transpose(0, 3, 1, 2).copy())).sum().backward()
    gradients = [t.grad.numpy().transpose(0, 2, 3, 1) for t in tensors]
    return output.detach().numpy().transpose(0, 2, 3, 1), gradients


def make_roi_align():
    """One level and four, both conventions, values and gradients."""
    rng = np.random.default_rng(0)
    shapes = [(BATCH, HEIGHT // s, WIDTH // s, CHANNELS) for s in (4, 8, 16, 32)]
    features = [(rng.integers(-64, 64, shape) / 16).astype("float32") for shape in shapes]
    boxes, image_index = draw_boxes(rng, ROWS), rng.integers(0, BATCH, ROWS).astype("int32")
    cotangent = (rng.integers(-8, 8, (ROWS, 7, 7, CHANNELS)) / 8).astype("float32")
    arrays = {f"P{i + 2}": f for i, f in enumerate(features)}
    arrays.update(boxes=boxes, image_index=image_index, cotangent=cotangent)
    rois = torch.from_numpy(np.concatenate([image_index[:, None], boxes], axis=1).astype("float32"))
    for aligned in (False, True):
        name = "aligned" if aligned else "unaligned"
        output, gradients = with_gradients(
            lambda t, aligned=aligned: roi_align(t[0], rois, 7, 1 / 8, sampling_ratio=2, aligned=aligned),
            features[1:2],
            cotangent,
        )
        arrays[f"one_level_{name}"], arrays[f"one_level_{name}_gradient"] = output, gradients[0]

    # MultiScaleRoIAlign takes boxes image by image: sort the rows by image, and put the answer back.
    order = np.argsort(image_index, kind="stable")
    per_image = [torch.from_numpy(boxes[image_index == i]) for i in range(BATCH)]
    pooler = MultiScaleRoIAlign(["P2", "P3", "P4", "P5"], 7, 2, canonical_scale=56, canonical_level=4)

    def pyramid(tensors):
        maps = {f"P{i + 2}": t for i, t in enumerate(tensors)}
        return pooler(maps, per_image, [(HEIGHT, WIDTH)] * BATCH)[np.argsort(order)]

    arrays["pyramid"], gradients = with_gradients(pyramid, features, cotangent)
    for i, gradient in enumerate(gradients):
        arrays[f"pyramid_gradient_P{i + 2}"] = gradient
    np.savez_compressed(HERE / "roi_align.npz", **arrays)


def make_roi_pool():
    """RoIPool with 7 and 2 bins; RoIAlign and RoIWarp with 1 and 4 samples, averages and maxima; on one level.

    RoIPool's features are never negative and have many equal values, as after a ReLU: gradients show which of them is
    taken. Those of the samples are all different, because rounding would select one of equal samples, and the boxes are
    those of the rows `clear`, without a sample where the border rule depends on rounding.
    """
    rng = np.random.default_rng(2)
    shape = (BATCH, 3 * HEIGHT // 8, WIDTH // 8, CHANNELS)
    equal = rng.integers(-8, 16, shape).clip(0).astype("float32") / 16
    different = rng.uniform(-4, 4, shape).astype("float32")
    boxes, image_index = draw_boxes(rng, 2 * ROWS), rng.integers(0, BATCH, 2 * ROWS).astype("int32")
    boxes[: ROWS // 2, 3] *= 3
    boxes[7:11] = [[4, 4, 12, 20], [-4, -12, 28, 36], [20, -4, 20, 4], [0, 0, 0, 0]]  # halves after division by 8
    boxes[ROWS:] = np.round(boxes[ROWS:] / 8) * 8  # on the borders of pixels
    cotangent = (rng.integers(-8, 8, (2 * ROWS, 7, 7, CHANNELS)) / 8).astype("float32")
    arrays = dict(equal=equal, different=different, boxes=boxes, image_index=image_index, cotangent=cotangent)
    whole = half_away_from_zero(boxes / 8)
    whole = np.concatenate([whole[:, :2], np.maximum(whole[:, 2:], whole[:, :2]) + 1], axis=1) * 8
    arrays["clear"] = clear = np.flatnonzero(~(sample_on_border(boxes / 8, shape) | sample_on_border(whole / 8, shape)))
    rows, rounded = (torch.from_numpy(np.c_[image_index, b].astype("float32")) for b in (boxes, whole))

    def samples(rois, ratio, reduce, aligned):
        if reduce == "average":
            return lambda t: roi_align(t[0], rois, 7, 1 / 8, sampling_ratio=ratio, aligned=aligned)
        # One sample for each of the bins of a finer grid, and then the maximum of ratio² bins.
        return lambda t: max_pool2d(roi_align(t[0], rois, 7 * ratio, 1 / 8, 1, aligned=aligned), ratio)

    def add(name, function, features, cotangent):
        arrays[name], (arrays[name + "_gradient"],) = with_gradients(function, [features], cotangent)

    add("pool", lambda t: roi_pool(t[0], rows, 7, 1 / 8), equal, cotangent)
    add("pool_2", lambda t: roi_pool(t[0], rows, 2, 1 / 8), equal, cotangent[:, :2, :2])
    for kind, rois in (("align", rows[clear]), ("warp", rounded[clear])):
        for ratio, reduce in ((1, "average"), (2, "average"), (2, "max")):
            for aligned in (False, True):
                name = f"{kind}_{ratio}_{reduce}" + "_aligned" * aligned
                add(name, samples(rois, ratio, reduce, aligned), different, cotangent[clear])
    np.savez_compressed(HERE / "roi_pool.npz", **arrays)


def sample_on_border(boxes, shape):
    """Whether a sample of 7 bins is at -1 or at the size of the map, where rounding decides whether it is outside."""
    found = np.zeros(len(boxes), bool)
    at = np.concatenate([(np.arange(n) + 0.5) / n for n in (7, 14)])
    for axis, size in enumerate(shape[2:0:-1]):
        length = boxes[:, 2 + axis] - boxes[:, axis]
        for start, extent in ((boxes[:, axis], np.maximum(length, 1)), (boxes[:, axis] - 0.5, length)):
            position = start[:, None] + extent[:, None] * at
            found |= np.isclose(position[..., None], [-1, size], atol=1e-3).any(axis=(1, 2))
    return found


def half_away_from_zero(numbers):
    """Rounded to whole numbers as by C's `round`."""
    return np.trunc(numbers + np.copysign(0.5, numbers))


def make_nms():
    """Rows of crowded boxes; kept rows by falling score, filled up with -1."""
    rng = np.random.default_rng(1)
    batch, rows = 3, 120
    corner = rng.uniform(0, 60, (batch, rows, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (batch, rows, 2))], axis=-1).astype("float32")
    scores = rng.permuted(np.tile(np.arange(rows), (batch, 1)), axis=1).astype("float32") / rows
    groups = rng.integers(0, 4, (batch, rows)).astype("int32")
    arrays = dict(boxes=boxes, scores=scores, groups=groups)
    for threshold in (0.3, 0.5, 0.7):
        kept = np.full((batch, rows), -1, "int32")
        for i in range(batch):
            inputs = (torch.from_numpy(a[i]) for a in (boxes, scores, groups))
            answer = batched_nms(*inputs, threshold).numpy()
            kept[i, : len(answer)] = answer
        arrays[f"kept_{threshold}"] = kept
    np.savez_compressed(HERE / "nms.npz", **arrays)


if __name__ == "__main__":
    make_roi_align()
    make_roi_pool()
    make_nms()
