"""Pickles with NumPy arrays in them, as detectron2's model zoo has them: {"model": {name: array}, "__author__": …}.

Written by Python 2 or 3, by NumPy 1 or 2, in protocols 2 to 5. `NAMES` says what stands for each global that NumPy
writes.
"""

import math
import re

import numpy as np

from keras_maskrcnn.pickles import safe_pickle
from keras_maskrcnn.pickles.safe_pickle import UnreadableError

NUMBER = re.compile(r"b1|[iu][1248]|f[248]")


class Dtype:
    """Stands for numpy.dtype: a number, and its byte order once the state has come.

    Args:
        code: str such as "f4".
    """

    def __init__(self, code, _align=False, _copy=False):
        if not isinstance(code, str) or not NUMBER.fullmatch(code):
            raise UnreadableError(f"it holds an array of {str(code)[:20]!r}, which is no plain number")
        self.dtype = np.dtype(code)

    def build(self, _version, order, *_rest):
        """Takes the byte order, "<", ">" or "|"."""
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """Stands for numpy.ndarray: empty, until the state has come."""

    def __init__(self, *_arguments):
        self.numbers = None

    def build(self, _version, shape, dtype, is_fortran, data):
        """Takes the content: shape, Dtype, order of the axes and raw bytes (as a latin-1 str from Python 2)."""
        data = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(dtype, Dtype) or not isinstance(data, bytes | bytearray):
            raise UnreadableError("it holds an array without plain data")
        if math.prod(shape) * dtype.dtype.itemsize != len(data) or any(side < 0 for side in shape):
            raise UnreadableError(f"it holds an array of shape {str(shape)[:80]} with {len(data)} bytes of data")
        flat = np.frombuffer(data, dtype.dtype)
        self.numbers = flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(shape, order="FC"[not is_fortran])

    def array(self):
        """The array, with the machine's byte order."""
        if self.numbers is None:
            raise UnreadableError("it holds an array without data")
        return self.numbers


def _encode(text, encoding="utf-8"):
    """Stands for _codecs.encode, in which protocols 0 to 2 dress bytes."""
    if encoding != "latin1":
        raise UnreadableError("its pickle encodes text otherwise than bytes are written")
    return text.encode("latin-1")


def _no_bytes():
    """Stands for bytes, which protocol 2 calls where an array is empty."""
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
        The pickled object, with `Array` objects in the place of arrays.

    Raises:
        UnreadableError: The pickle names anything but NumPy's own functions.
    """
    data.seek(0)
    return safe_pickle.load(data, NAMES)
