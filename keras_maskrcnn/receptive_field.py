"""How much of the picture a unit of a feature map sees: worked out from the layers, and measured by gradients."""

import collections
import math

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.backend.input_gradient import input_gradient

# What a unit with index i of a map depends on along one axis: input pixels i * stride + low … i * stride + high.
Reach = collections.namedtuple("Reach", "low high stride")

# extent: (height, width) in pixels; box: the same as x1, y1, x2, y2; gradient: float32 [H, W].
Probe = collections.namedtuple("Probe", "extent box gradient")

# They change the grid in a way that one stride does not describe, or move values over the map.
_UNKNOWN = ("Conv2DTranspose", "UpSampling2D", "Resizing", "Flatten", "Permute", "MultiHeadAttention")


def receptive_field(backbone, output="C4", then=((3, 1),)):
    """Side of the square of pixels that a unit depends on, from the kernels, strides and dilations of the layers.

    With every layer of kernel k and dilation d on a map of stride j the side grows by (k - 1)·d·j; where paths meet,
    as at a shortcut, the union counts. Normalisations count as point-wise: so they are in inference, but for group
    normalisation, whose statistics make each unit depend a little on the whole map.

    Args:
        backbone: functional Keras model with outputs {"C2": …}.
        output: name of the output.
        then: (kernel, stride) of layers that follow, such as the 3×3 one of a region proposal network.

    Returns:
        (size, stride) in pixels; the size is infinite behind global pooling.

    Raises:
        ValueError: in one line, for an unknown output, or a layer whose reach is not known.
    """
    axes = [reach(backbone, output, then, axis) for axis in (0, 1)]
    sizes = [axis.high - axis.low + 1 for axis in axes]
    return max(sizes), axes[int(np.argmax(sizes))].stride


def reach(backbone, output="C4", then=((3, 1),), axis=0):
    """Where the receptive field of a unit lies.

    Args:
        backbone: as for `receptive_field`.
        output: as there.
        then: as there; these layers are padded alike on both sides.
        axis: 0 for rows, 1 for columns.

    Returns:
        `Reach`: the unit with index i sees pixels i·stride + low … i·stride + high, where the picture ends or beyond.
    """
    if output not in backbone.output:
        raise ValueError(f"{backbone.name} has no output {output!r}, but {', '.join(backbone.output)}")
    known = {}
    for operation in backbone.operations:
        inputs = [known[id(tensor)] for tensor in _tensors(operation, "input") if id(tensor) in known]
        result = _after(operation, _union(operation, inputs), axis)
        known.update((id(tensor), result) for tensor in _tensors(operation, "output"))
    result = known[id(backbone.output[output])]
    for kernel, stride in then:
        result = _window(result, kernel, stride, 1, (kernel - 1) // 2)
    return result


def probe(model, image_size, output=None, unit=None, pictures=8, seed=0):
    """The receptive field that a network has, found by the gradient of one unit with respect to random pictures.

    A max pooling hands its gradient to the largest value alone and a ReLU may hand on none, so that the field is the
    union over several pictures. The mean of the gradient's size is the *effective* receptive field (Luo et al. 2016).

    Args:
        model: Keras model, or function, from float32 `[B, H, W, 3]` to `[B, h, w, C]` or a dict of such maps.
        image_size: (H, W) of the pictures; larger than the receptive field, or the picture's border will cut it.
        output: name of the map, where there is a dict.
        unit: (row, column) of the unit; None takes the middle of the map.
        pictures: number of random pictures.
        seed: of the pictures.

    Returns:
        `Probe`: `extent` (height, width) in pixels, of the smallest `box` (x1, y1, x2, y2) around all pixels with a
        gradient; `gradient` float32 `[H, W]`, the mean of |gradient| over pictures and colours.

    Raises:
        ValueError: if no pixel has a gradient, or on a backend without `input_gradient`.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(tuple(image_size), "float64")
    for _ in range(pictures):
        picture = rng.normal(size=(1, *image_size, 3)).astype("float32")
        gradient = input_gradient(lambda images: _unit_value(model, images, output, unit, seed), picture)
        total += np.abs(gradient[0]).mean(axis=-1)
    rows, columns = np.flatnonzero(total.any(axis=1)), np.flatnonzero(total.any(axis=0))
    if not len(rows):
        raise ValueError("the unit depends on no pixel: the network is dead there, or gives a constant")
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Probe((box[3] - box[1], box[2] - box[0]), box, (total / pictures).astype("float32"))


def effective_size(gradient, share=0.0455):
    """Side of a square with as many pixels as have a mean gradient above a share of the highest (Luo et al. 2016).

    Args:
        gradient: float32 `[H, W]` of a `Probe`.
        share: of the highest gradient; 1 - 95.45 % is the paper's.

    Returns:
        float, pixels.
    """
    return float(np.sqrt(np.count_nonzero(gradient > share * gradient.max())))


def _unit_value(model, images, output, unit, seed):
    """One number that depends on all channels of one unit, none of which can cancel another's on every picture."""
    features = model(images)
    features = features if output is None else features[output]
    row, column = unit or (features.shape[1] // 2, features.shape[2] // 2)
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, features.shape[-1]).astype("float32")
    return ops.sum(ops.cast(features[0, row, column], "float32") * weights)


def _tensors(operation, side):
    return keras.tree.flatten(getattr(operation, side))


def _union(operation, inputs):
    """What an operation with these inputs sees before it adds its own window."""
    if not inputs:
        return Reach(0, 0, 1)
    strides = {part.stride for part in inputs if not math.isinf(part.high)}
    if len(strides) > 1:
        raise ValueError(f"{operation.name} joins maps of strides {sorted(strides)}: its receptive field is not known")
    stride = strides.pop() if strides else inputs[0].stride
    return Reach(min(part.low for part in inputs), max(part.high for part in inputs), stride)


def _after(operation, before, axis):
    """The reach of what an operation puts out, from that of its input."""
    kind = type(operation).__name__
    if kind in _UNKNOWN or isinstance(operation, keras.Model):
        raise ValueError(f"the receptive field behind {operation.name} ({kind}) is not known")
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
    """Pixels of padding before the first; of "same", for sides that the stride divides."""
    if operation.padding != "same":
        return 0
    return max((kernel - 1) * dilation + 1 - stride, 0) // 2


def _along(value, axis):
    return value[axis] if isinstance(value, list | tuple) else value
