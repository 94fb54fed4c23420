"""Decoding of raw bytes to NumPy arrays, for file formats that store the dtype separately."""

import math

import numpy as np

from keras_maskrcnn.pickles.numpy_pickle import is_shape
from keras_maskrcnn.pickles.safe_pickle import UnreadableError

BFLOAT16 = "bfloat16"  # not a NumPy dtype; read as float32, of which it is the upper half
WHOLE = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
BYTES = {BFLOAT16: 2, **{kind: np.dtype(kind).itemsize for kind in [*WHOLE, "float16", "float32", "float64"]}}


def decode(raw, kind, order="<"):
    """Decodes bytes, without a copy if possible.

    Args:
        raw: uint8 [bytes].
        kind: A key of BYTES.
        order: "<" (little-endian) or ">".

    Returns:
        1-D array in native byte order, float32 for bfloat16; a view of `raw` if no copy is needed.
    """
    if kind == BFLOAT16:
        return (raw.view(f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    if kind == "bool":
        return raw != 0
    dtype = np.dtype(kind)
    numbers = raw.view(dtype.newbyteorder(order)).astype(dtype, copy=False)
    return np.require(numbers, requirements="A")


def strided(numbers, first, shape, strides):
    """A read-only strided view of a buffer.

    Args:
        numbers: 1-D array, the buffer.
        first: Index of the tensor's first element.
        shape: Tuple of non-negative ints.
        strides: Tuple of non-negative ints, one per axis, in elements.

    Raises:
        UnreadableError: The tensor extends past the buffer, or has more elements than the buffer.
    """
    if not is_shape((first,)) or not is_shape(shape) or not is_shape(strides) or len(shape) != len(strides):
        raise UnreadableError("a tensor has an offset, a shape or strides that are not natural numbers")
    count = math.prod(shape)
    last = first + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if count and (last >= len(numbers) or count > len(numbers)):
        raise UnreadableError(
            f"a tensor of shape {str(shape)[:80]} does not fit in its storage of {len(numbers)} numbers"
        )
    if not count:
        return np.empty(shape, numbers.dtype)
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[first:], shape, steps, writeable=False)
