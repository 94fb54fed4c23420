r"""RoIAlign and RoIPool of this package against torchvision's, forward and forward + backward.

    python benchmarks/roi_align.py --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION \
        --output benchmarks/results/roi_align.json

Without `--peer-python` only this package is timed. `--implementations auto,gather` adds further lowerings of it;
`gather+xla` is gather in a compiled function, `pool:auto` is RoIPool and `max:auto` RoIAlign with the maximum of four
samples, which torchvision does not have: its average is timed instead. `--sizes 8x64,8x16` selects sizes. Otherwise the
results of both sides must have the same shape and nearly the same mean magnitude.
"""

import functools
from unittest import mock

import numpy as np
import pairs

STRIDES = (4, 8, 16, 32)
# Boxes per image, images, output size, height, width, channels.
SIZES = {
    "1000 boxes, P7, 800x1088, 256 ch": (1000, 1, 7, 800, 1088, 256),
    "8x64 boxes, P7, 128x128, 64 ch": (64, 8, 7, 128, 128, 64),
    "8x16 boxes, P14, 128x128, 64 ch": (16, 8, 14, 128, 128, 64),
}
KINDS = ("forward", "forward+backward")


def inputs(boxes, images, bins, height, width, channels):
    """Features [B, H, W, C] by level, boxes [B, R, 4] clipped to the image, upstream gradient [B, R, P, P, C]."""
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((images, height // s, width // s, channels), "float32") for s in STRIDES]
    side = np.exp(rng.uniform(np.log(8), np.log(0.8 * min(height, width)), (images, boxes, 2)))
    centre = rng.uniform((0, 0), (width, height), (images, boxes, 2))
    corners = np.concatenate([centre - side / 2, centre + side / 2], axis=-1)
    rows = np.clip(corners, 0, [width, height, width, height]).astype("float32")
    return features, rows, rng.standard_normal((images, boxes, bins, bins, channels), "float32")


def ours(size, kind, implementation):
    """The call of one case on this package, and its repeats."""
    import tensorflow as tf

    from keras_maskrcnn.layers import RoIAlign, RoIPool

    features, boxes, upstream = inputs(*size)
    pooling, _, name = implementation.removesuffix("+xla").rpartition(":")
    options = dict(output_size=size[2], strides=STRIDES, implementation=name)
    layer = {"": RoIAlign, "pool": RoIPool, "max": functools.partial(RoIAlign, reduce="max")}[pooling](**options)

    def forward(features, boxes, upstream):
        return layer(features, boxes)

    def both(features, boxes, upstream):
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = layer(features, boxes)
        return output, tape.gradient(output, features, upstream)

    compiled = tf.function(both if kind == KINDS[1] else forward, jit_compile=implementation.endswith("+xla"))
    arguments = [tf.constant(f) for f in features], tf.constant(boxes), tf.constant(upstream)

    def call():
        tensors = tf.nest.flatten(compiled(*arguments))
        for tensor in tensors:
            tensor[:1].numpy()
        facts = {"regions": size[0] * size[1], "first_region": magnitude(tensors[0][0, 0].numpy())}
        return {**facts, "maximum": pooling == "max"}

    return call, 10 if size[1] > 1 else 3


def peer(size, kind, implementation):
    """The call of one case on torchvision, and its repeats."""
    import torch
    from torchvision.ops import MultiScaleRoIAlign, poolers, roi_pool

    features, boxes, upstream = inputs(*size)
    training = kind == KINDS[1]
    maps = {
        str(i): torch.from_numpy(f.transpose(0, 3, 1, 2).copy()).requires_grad_(training)
        for i, f in enumerate(features)
    }
    rows, shapes = [torch.from_numpy(b) for b in boxes], [size[3:5]] * size[1]
    upstream = torch.from_numpy(upstream.reshape(-1, *upstream.shape[2:]).transpose(0, 3, 1, 2).copy())
    pooler = MultiScaleRoIAlign(list(maps), size[2], 2)
    pooled = poolers.roi_align
    if implementation.startswith("pool:"):  # with torchvision's assignment of boxes to levels

        def pooled(level, rows, output_size, spatial_scale, sampling_ratio):
            return roi_pool(level, rows, output_size, spatial_scale)

    def call():
        with torch.set_grad_enabled(training), mock.patch.object(poolers, "roi_align", pooled):
            output = pooler(maps, rows, shapes)
        if training:
            torch.autograd.grad(output, list(maps.values()), upstream)
        return {"regions": len(output), "first_region": magnitude(output[0].detach().numpy())}

    return call, 3


def magnitude(values):
    """Mean absolute value, by which the results of both sides are compared."""
    return float(np.abs(values).mean())


def check(ours, peer):
    """None, or a line about a difference between the work of both sides."""
    same = ours["regions"] == peer["regions"] and abs(ours["first_region"] - peer["first_region"]) < 1e-3
    return None if same or ours["maximum"] else f"ours gave {ours}, the peer {peer}"


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    parser = pairs.arguments(__doc__, 9)
    parser.add_argument(
        "--implementations", default="auto", help="comma-separated lowerings of this package (default: auto)"
    )
    parser.add_argument("--sizes", default="", help="comma-separated beginnings of names of sizes (default: all)")
    options = parser.parse_args()
    sizes = [size for size in SIZES if size.startswith(tuple(options.sizes.split(",")))]
    names = [f"{size}; {kind}" for size in sizes for kind in KINDS]
    implementations = options.implementations.split(",")
    if options.worker is None:
        asked = [f"{name}; {implementation}" for name in names for implementation in implementations]
        pairs.compare(__file__, options, asked, check=check)
        return

    def case(name):
        size, kind, implementation = name.split("; ")
        if options.worker == "ours":
            return ours(SIZES[size], kind, implementation)
        return peer(SIZES[size], kind, implementation)

    pairs.serve(case)


if __name__ == "__main__":
    main()
