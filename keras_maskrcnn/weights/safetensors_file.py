"""Files of the safetensors format: a JSON header, then the bytes of the tensors without gaps.

The `safetensors` package (extra `convert`) reads and checks the header. The values are views of the file, which also
supports bfloat16, unlike the package's NumPy interface.
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
        Dict from name to array in the order of the file; views of the file are read-only.

    Raises:
        UnreadableError: A tensor has a dtype that NumPy does not support.
        ImportError: The safetensors package is not installed.
        SafetensorError: The header is damaged or does not match the size of the file.
    """
    from safetensors import safe_open

    arrays, place = {}, 8 + int.from_bytes(data[:8], "little")
    with safe_open(path, framework="numpy") as file:
        for name in file.offset_keys():  # in a valid file each tensor starts at the end of the previous one
            header = file.get_slice(name)
            kind, shape = header.get_dtype(), header.get_shape()
            if kind not in KINDS:
                raise UnreadableError(f"{name} has the dtype {kind}, which NumPy does not support")
            size = math.prod(shape) * BYTES[KINDS[kind]]
            arrays[name] = decode(np.frombuffer(data, np.uint8, size, place), KINDS[kind]).reshape(shape)
            place += size
    return arrays
