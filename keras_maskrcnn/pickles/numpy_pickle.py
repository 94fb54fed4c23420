"""Pickles that contain NumPy arrays, as in detectron2's model zoo: {"model": {name: array}, "__author__": …}.

Supports files of Python 2 and 3, NumPy 1 and 2, protocols 2 to 5. `NAMES` maps the globals in such files to their
replacements.
"""

import math
import re

import numpy as np

from keras_maskrcnn.pickles import safe_pickle
from keras_maskrcnn.pickles.safe_pickle import UnreadableError

MAX_RANK = 64  # axes of an array, as in NumPy 2
NUMBER = re.compile(r"b1|[iu][1248]|f[248]")


def is_shape(value):
    """Whether a value is a tuple of natural numbers below 2**63, at most `MAX_RANK` of them.

    Only such values may be multiplied or put in a message: a short pickle can hold nested tuples whose text has 2**40
    characters, and `math.prod` repeats tuples.
    """
    if type(value) is not tuple or len(value) > MAX_RANK:
        return False
    return all(type(side) is int and 0 <= side < 2**63 for side in value)


class Dtype:
    """Replacement for numpy.dtype; `build` sets the byte order.

    Args:
        code: str such as "f4".
    """

    def __init__(self, code, _align=False, _copy=False):
        if not isinstance(code, str) or not NUMBER.fullmatch(code):
            shown = repr(code[:20]) if isinstance(code, str) else "objects"
            raise UnreadableError(f"contains an array of {shown}, which is not a numeric dtype")
        self.dtype = np.dtype(code)

    def build(self, _version, order, *_rest):
        """Sets the byte order, "<", ">" or "|"."""
        if not isinstance(order, str) or order not in ("<", ">", "|", "="):
            raise UnreadableError("contains an array of an unknown byte order")
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """Replacement for numpy.ndarray; `build` sets the content."""

    def __init__(self, *_arguments):
        self.numbers = None

    def build(self, _version, shape, dtype, is_fortran, data):
        """Sets the content from shape, Dtype, order of the axes and raw bytes (a latin-1 str from Python 2)."""
        data = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(dtype, Dtype) or not isinstance(data, bytes | bytearray):
            raise UnreadableError("contains an array that is not numeric")
        if not is_shape(shape):
            raise UnreadableError("contains an array of a shape that is not a tuple of sizes")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise UnreadableError(f"contains an array of shape {str(shape)[:80]} with {len(data)} bytes of data")
        flat = np.frombuffer(data, dtype.dtype)
        self.numbers = flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(shape, order="FC"[not is_fortran])

    def array(self):
        """The array in native byte order."""
        if self.numbers is None:
            raise UnreadableError("an array has no data")
        return self.numbers


def _encode(text, encoding="utf-8"):
    """Replacement for _codecs.encode, with which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise UnreadableError("its pickle encodes bytes in another way than latin1")
    return text.encode("latin-1")


def _no_bytes():
    """Replacement for bytes, which protocol 2 calls for empty arrays."""
    return b""


def _from_buffer(data, dtype, shape, order):
    array = Array()
    array.build(1, shape, dtype, order == "F", data)
    return array


def _scalar(dtype, data):
    return _from_buffer(data, dtype, (), "C")


NAMES = {
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "numpy.dtype": Dtype,
    "numpy.ndarray": None,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "multiarray._reconstruct": Array,
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
}


def read(data):
    """Reads a pickle of NumPy arrays.

    Args:
        data: mmap of the file.

    Returns:
        The pickled object, with an `Array` for each array.

    Raises:
        UnreadableError: The pickle refers to a global that is not in `NAMES`.
    """
    data.seek(0)
    return safe_pickle.load(data, NAMES)
