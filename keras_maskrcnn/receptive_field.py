"""Receptive fields of the units of a feature map: computed from the layers, and measured by gradients."""

import collections
import math

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.backend.input_gradient import input_gradient

# Along one axis, the unit with index i depends on the input pixels i * stride + low … i * stride + high.
Reach = collections.namedtuple("Reach", "low high stride")

# extent: (height, width) in pixels; box: x1, y1, x2, y2; gradient: float32 [H, W].
Probe = collections.namedtuple("Probe", "extent box gradient")

# Layers whose effect on the grid is not described by one stride, or that move values over the map.
_UNKNOWN = ("Conv2DTranspose", "UpSampling2D", "Resizing", "Flatten", "Permute", "MultiHeadAttention")


def receptive_field(backbone, output="C4", then=((3, 1),)):
    """Side of the square of pixels that a unit depends on, from the kernels, strides and dilations of the layers.

    A layer with kernel k and dilation d on a map of stride j adds (k - 1)·d·j to the side; where paths merge, as at a
    shortcut, the union is used. Normalisations count as point-wise, as they are at inference, except for group
    normalisation, whose statistics make each unit depend weakly on the whole map.

    Args:
        backbone: functional Keras model with outputs {"C2": …}.
        output: name of the output.
        then: (kernel, stride) of subsequent layers, such as the 3×3 convolution of a region proposal network.

    Returns:
        (size, stride) in pixels; the size is infinite after global pooling.

    Raises:
        ValueError: for an unknown output, or a layer whose receptive field is unknown.
    """
    axes = [reach(backbone, output, then, axis) for axis in (0, 1)]
    sizes = [axis.high - axis.low + 1 for axis in axes]
    return max(sizes), axes[int(np.argmax(sizes))].stride


def reach(backbone, output="C4", then=((3, 1),), axis=0):
    """Position of the receptive field of a unit along one axis.

    Args:
        backbone: as for `receptive_field`.
        output: as for `receptive_field`.
        then: as for `receptive_field`; padding is symmetric.
        axis: 0 for rows, 1 for columns.

    Returns:
        `Reach`: the unit with index i depends on the pixels i·stride + low … i·stride + high, also outside the image.
    """
    if output not in backbone.output:
        raise ValueError(f"{backbone.name} has no output {output!r}; its outputs are {', '.join(backbone.output)}")
    known = {}
    for operation in backbone.operations:
        inputs = [known[id(tensor)] for tensor in _tensors(operation, "input") if id(tensor) in known]
        result = _after(operation, _union(operation, inputs), axis)
        known.update((id(tensor), result) for tensor in _tensors(operation, "output"))
    result = known[id(backbone.output[output])]
    for kernel, stride in then:
        result = _window(result, kernel, stride, 1, (kernel - 1) // 2)
    return result


def probe(model, image_size, output=None, unit=None, images=8, seed=0):
    """Measures the receptive field by the gradient of one unit with respect to random images.

    Max pooling passes its gradient to the largest value only, and ReLU may pass none, so the field is the union over
    several images. The mean of |gradient| is the *effective* receptive field (Luo et al. 2016).

    Args:
        model: Keras model or function from float32 `[B, H, W, 3]` to `[B, h, w, C]` or a dict of such maps.
        image_size: (H, W) of the images; must be larger than the receptive field, which is otherwise cut off.
        output: name of the map if the output is a dict.
        unit: (row, column) of the unit; None for the centre of the map.
        images: number of random images.
        seed: seed of the images.

    Returns:
        `Probe`: `extent` (height, width) in pixels of the smallest `box` (x1, y1, x2, y2) around all pixels with
        non-zero gradient; `gradient` float32 `[H, W]`, the mean of |gradient| over images and channels.

    Raises:
        ValueError: if all gradients are 0, or on a backend that `input_gradient` does not support.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(tuple(image_size), "float64")
    for _ in range(images):
        image = rng.normal(size=(1, *image_size, 3)).astype("float32")
        gradient = input_gradient(lambda batch: _unit_value(model, batch, output, unit, seed), image)
        total += np.abs(gradient[0]).mean(axis=-1)
    rows, columns = np.flatnonzero(total.any(axis=1)), np.flatnonzero(total.any(axis=0))
    if not len(rows):
        raise ValueError("the unit depends on no pixel: its output is constant")
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Probe((box[3] - box[1], box[2] - box[0]), box, (total / images).astype("float32"))


def effective_size(gradient, share=0.0455):
    """Side of a square whose area is the number of pixels with a gradient above `share` · maximum (Luo et al. 2016).

    Args:
        gradient: float32 `[H, W]` of a `Probe`.
        share: fraction of the maximum gradient; 1 - 95.45 % in the paper.

    Returns:
        float, pixels.
    """
    return float(np.sqrt(np.count_nonzero(gradient > share * gradient.max())))


def _unit_value(model, images, output, unit, seed):
    """A weighted sum of all channels of one unit; random positive weights make cancellation unlikely."""
    features = model(images)
    features = features if output is None else features[output]
    row, column = unit or (features.shape[1] // 2, features.shape[2] // 2)
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, features.shape[-1]).astype("float32")
    return ops.sum(ops.cast(features[0, row, column], "float32") * weights)


def _tensors(operation, side):
    return keras.tree.flatten(getattr(operation, side))


def _union(operation, inputs):
    """Union of the receptive fields of an operation's inputs."""
    if not inputs:
        return Reach(0, 0, 1)
    strides = {part.stride for part in inputs if not math.isinf(part.high)}
    if len(strides) > 1:
        raise ValueError(f"{operation.name} merges maps of strides {sorted(strides)}: its receptive field is unknown")
    stride = strides.pop() if strides else inputs[0].stride
    return Reach(min(part.low for part in inputs), max(part.high for part in inputs), stride)


def _after(operation, before, axis):
    """The `Reach` of an operation's output, from that of its input."""
    kind = type(operation).__name__
    if kind in _UNKNOWN or isinstance(operation, keras.Model):
        raise ValueError(f"the receptive field after {operation.name} ({kind}) is unknown")
    if kind.startswith("Global"):
        return Reach(-math.inf, math.inf, before.stride)
    if kind in ("ZeroPadding2D", "Cropping2D"):
        moved = operation.padding[axis][0] if kind == "ZeroPadding2D" else -operation.cropping[axis][0]
        return before._replace(low=before.low - moved * before.stride, high=before.high - moved * before.stride)
    kernel = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if kernel is None:
        return before
    kernel, stride = _along(kernel, axis), _along(operation.strides, axis)
    dilation = _along(getattr(operation, "dilation_rate", 1), axis)
    return _window(before, kernel, stride, dilation, _padding(operation, kernel, stride, dilation))


def _window(before, kernel, stride, dilation, padding):
    low = before.low - padding * before.stride
    high = before.high + ((kernel - 1) * dilation - padding) * before.stride
    return Reach(low, high, before.stride * stride)


def _padding(operation, kernel, stride, dilation):
    """Padding before the first pixel; for "same", assumes sides divisible by the stride."""
    if operation.padding != "same":
        return 0
    return max((kernel - 1) * dilation + 1 - stride, 0) // 2


def _along(value, axis):
    return value[axis] if isinstance(value, list | tuple) else value
