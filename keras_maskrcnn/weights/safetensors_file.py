"""Files of the safetensors format: a JSON header, then the tensors' bytes without a gap.

The header is read and checked by the `safetensors` package (extra `convert`); the numbers are views of the file, which
also serves bfloat16, a kind that the package's NumPy side does not have.
"""

import math

import numpy as np

from keras_maskrcnn.pickles.safe_pickle import UnreadableError
from keras_maskrcnn.weights.stored_numbers import BFLOAT16, BYTES, decode

KINDS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": BFLOAT16,
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def read(path, data):
    """Reads all tensors.

    Args:
        path: str or Path.
        data: mmap of the same file.

    Returns:
        Dict from name to array in the order of the file; read-only where the numbers lie straight in it.

    Raises:
        UnreadableError: A tensor is of a kind that NumPy does not have.
        ImportError: The safetensors package is missing.
        SafetensorError: The header is damaged, or declares more or less than the file has.
    """
    from safetensors import safe_open

    arrays, place = {}, 8 + int.from_bytes(data[:8], "little")
    with safe_open(path, framework="numpy") as file:
        for name in file.offset_keys():  # a valid header leaves no gap, so that each tensor starts where the last ended
            header = file.get_slice(name)
            kind, shape = header.get_dtype(), header.get_shape()
            if kind not in KINDS:
                raise UnreadableError(f"{name} is of the kind {kind}, which NumPy does not have")
            size = math.prod(shape) * BYTES[KINDS[kind]]
            arrays[name] = decode(np.frombuffer(data, np.uint8, size, place), KINDS[kind]).reshape(shape)
            place += size
    return arrays
