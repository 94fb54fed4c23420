"""Weights for torchvision's two Mask R-CNNs, drawn in NumPy: both sides of the comparison make the same ones.

No trained weights are needed, and none are shipped. Every array is drawn from its own name, so that neither the order
of the names nor what else the network holds matters. The scales keep features of order one through the whole network
and make a photo yield some dozens of detections of many classes, which trained weights would do and Xavier's would not.
"""

import zlib

import numpy as np

VERSIONS = ("v1", "v2")
CLASSES = 91  # background and COCO's 90, torchvision's count
BLOCKS = (3, 4, 6, 3)

# Standard deviation of what these layers put out for inputs of order one, where He's rule would not do: a stem that
# answers to edges, a pyramid whose levels bring proposals of every size, and spread scores, boxes and masks.
SPREAD = {
    "backbone.body.conv1": 1.3,
    "backbone.fpn.layer_blocks.0": 0.5,
    "backbone.fpn.layer_blocks.1": 0.9,
    "backbone.fpn.layer_blocks.2": 1.8,
    "backbone.fpn.layer_blocks.3": 2.5,
    "rpn.head.cls_logits": 1.5,
    "rpn.head.bbox_pred": 0.1,
    "roi_heads.box_head.5": 2.0,
    "roi_heads.box_predictor.cls_score": 1.6,
    "roi_heads.box_predictor.bbox_pred": 0.5,
    "roi_heads.mask_predictor.mask_fcn_logits": 6.0,
}

# Added to the background's logit, so that most regions are none of the 90 classes.
BACKGROUND = 4.0


def weights(version):
    """All arrays of a torchvision `state_dict`, by name.

    Args:
        version: "v1" (`maskrcnn_resnet50_fpn`) or "v2" (`maskrcnn_resnet50_fpn_v2`).

    Returns:
        dict of float32 arrays, and int64 scalars for the counters of v2's batch norms.
    """
    return {name: draw(name, shape) for name, shape in shapes(version).items()}


def draw(name, shape):
    """One array from its name and shape.

    `RandomState` is used because NumPy guarantees its stream for ever, and uniform numbers because they take no
    function whose last bit depends on the platform.
    """
    module, _, kind = name.rpartition(".")
    if kind == "num_batches_tracked":
        return np.array(0, "int64")
    uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) * 2 - 1
    if kind == "weight" and len(shape) > 1:
        return _kernel(uniform, SPREAD.get(module.removesuffix(".0"), 2**0.5)).astype("float32")
    if kind == "running_var":
        return (1 + 0.3 * uniform).astype("float32")
    if kind == "weight":
        return (_norm_scale(module) * (1 + 0.3 * uniform)).astype("float32")
    bias = 0.1 * uniform
    if module == "roi_heads.box_predictor.cls_score":
        bias[0] += BACKGROUND
    return bias.astype("float32")


def _kernel(uniform, spread):
    """Kernel `[outputs, inputs, ...]` of deviation `spread / √(values summed for an output)`.

    An output's values sum to zero, in the stem for each colour: inputs share a large positive mean after a ReLU, which
    would drown what differs between two places, and all regions would be of one class.
    """
    stem = uniform.shape[-1] == 7
    axes = (2, 3) if stem else tuple(range(1, uniform.ndim))
    uniform = _smoothed(uniform) if stem else uniform
    return (uniform - uniform.mean(axis=axes, keepdims=True)) * spread * (3 / uniform[0].size) ** 0.5


def _smoothed(kernel):
    """The stem's kernels as sums of 3×3 neighbours, so that they answer to edges more than to the pixels' last bits."""
    return sum(np.roll(kernel, (i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 3


def _norm_scale(module):
    """Factor of a norm layer: a small one ends each residual branch, so that depth does not add up."""
    return 0.4 if module.endswith("bn3") else 1.0


def shapes(version):
    """Names and shapes of the arrays of `weights`, in torchvision's order."""
    if version not in VERSIONS:
        raise ValueError(f"version={version!r} is not one of {VERSIONS}")
    counted = version == "v2"  # v1 has frozen norms, which count no batches
    found = {}
    found.update(_body(counted))
    found.update(_pyramid(version))
    found.update(_rpn(version))
    found.update(_box_head(version))
    found.update(_mask_head(version))
    return found


def _conv(name, outputs, inputs, size, bias=True):
    found = {f"{name}.weight": (outputs, inputs, size, size)}
    return {**found, f"{name}.bias": (outputs,)} if bias else found


def _dense(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name, channels, counted=True):
    found = {f"{name}.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")}
    return {**found, f"{name}.num_batches_tracked": ()} if counted else found


def _body(counted):
    """ResNet-50 without its classifier."""
    body = "backbone.body"
    found = {**_conv(f"{body}.conv1", 64, 3, 7, bias=False), **_norm(f"{body}.bn1", 64, counted)}
    inputs = 64
    for stage, blocks in enumerate(BLOCKS, start=1):
        width = 32 * 2**stage
        for block in range(blocks):
            name = f"{body}.layer{stage}.{block}"
            sizes = ((width, inputs, 1), (width, width, 3), (4 * width, width, 1))
            for i, (out, into, size) in enumerate(sizes, start=1):
                found.update(_conv(f"{name}.conv{i}", out, into, size, bias=False))
                found.update(_norm(f"{name}.bn{i}", out, counted))
            if block == 0:
                found.update(_conv(f"{name}.downsample.0", 4 * width, inputs, 1, bias=False))
                found.update(_norm(f"{name}.downsample.1", 4 * width, counted))
            inputs = 4 * width
    return found


def _conv_maybe_norm(name, version, inputs, size):
    """A convolution to 256 channels: with a bias in v1, with a norm in v2."""
    found = _conv(f"{name}.0", 256, inputs, size, bias=version == "v1")
    return {**found, **_norm(f"{name}.1", 256)} if version == "v2" else found


def _pyramid(version):
    found = {}
    for i, inputs in enumerate((256, 512, 1024, 2048)):
        found.update(_conv_maybe_norm(f"backbone.fpn.inner_blocks.{i}", version, inputs, 1))
    for i in range(4):
        found.update(_conv_maybe_norm(f"backbone.fpn.layer_blocks.{i}", version, 256, 3))
    return found


def _rpn(version):
    found = {}
    for i in range(1 if version == "v1" else 2):
        found.update(_conv(f"rpn.head.conv.{i}.0", 256, 256, 3))
    return {**found, **_conv("rpn.head.cls_logits", 3, 256, 1), **_conv("rpn.head.bbox_pred", 12, 256, 1)}


def _box_head(version):
    head, found = "roi_heads.box_head", {}
    if version == "v1":
        found.update(_dense(f"{head}.fc6", 1024, 256 * 7 * 7))
        found.update(_dense(f"{head}.fc7", 1024, 1024))
    else:
        for i in range(4):
            found.update(_conv_maybe_norm(f"{head}.{i}", version, 256, 3))
        found.update(_dense(f"{head}.5", 1024, 256 * 7 * 7))
    found.update(_dense("roi_heads.box_predictor.cls_score", CLASSES, 1024))
    found.update(_dense("roi_heads.box_predictor.bbox_pred", 4 * CLASSES, 1024))
    return found


def _mask_head(version):
    head, found = "roi_heads", {}
    for i in range(4):
        found.update(_conv_maybe_norm(f"{head}.mask_head.{i}", version, 256, 3))
    found.update(_conv(f"{head}.mask_predictor.conv5_mask", 256, 256, 2))
    found.update(_conv(f"{head}.mask_predictor.mask_fcn_logits", CLASSES, 256, 1))
    return found
