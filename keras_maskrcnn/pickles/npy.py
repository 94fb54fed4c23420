"""Reads `.npy` files of arrays of arrays (`dtype=object`), such as ragged labels and boxes, without unpickling.

NumPy writes such an array as a header and a pickle, and reads it only with `allow_pickle=True`, which executes the
pickle. Here NumPy's parser reads the header (literals only), and `safe_pickle` the pickle.
"""

import math
import pathlib

import numpy as np

from keras_maskrcnn.pickles import numpy_pickle, safe_pickle
from keras_maskrcnn.pickles.safe_pickle import UnreadableError

MAX_BYTES = 2**28  # of the arrays in an array of objects, where entries that are one object count each
MAGIC = b"\x93NUMPY"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
OBJECT = ("O", "O4", "O8")  # O4 and O8: written on 32-bit and 64-bit machines


class UnreadableFileError(UnreadableError):
    """Error for a file that cannot be read; the message is one line.

    Args:
        path: The file.
        reason: Reason.
    """

    def __init__(self, path, reason):
        self.path, self.reason = path, " ".join(str(reason).split())
        super().__init__(f"{path}: {self.reason}")

    def __reduce__(self):
        return type(self), (self.path, self.reason)


class Objects:
    """Replacement for numpy.dtype("O"), which has no byte order."""

    def build(self, *_state):
        """Ignores the state."""


class Array(numpy_pickle.Array):
    """Replacement for numpy.ndarray, numeric or of objects.

    Attributes:
        shape: Shape of an array of objects; None for a numeric array.
        items: List of the objects in row-major order; None for a numeric array.
    """

    shape = items = None

    def build(self, version, shape, dtype, is_fortran, data):
        """Sets the content; for an array of objects it is a row-major list, whatever the value of `is_fortran`."""
        if not isinstance(dtype, Objects):
            return super().build(version, shape, dtype, is_fortran, data)
        if type(data) is not list or not numpy_pickle.is_shape(shape) or math.prod(shape) != len(data):
            raise UnreadableError("contains an array of objects whose number does not fit its shape")
        self.shape, self.items = shape, data


def _dtype(code, *flags):
    return Objects() if code in OBJECT else numpy_pickle.Dtype(code, *flags)


NAMES = {
    **numpy_pickle.NAMES,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": Array for core in ("core", "_core")},
}


def read_objects(path):
    """Reads the arrays in an array of objects, or the entries of a numeric array.

    `numpy.array(arrays, dtype=object)` of n arrays of equal shape creates an array [n, *shape] of single numbers; it is
    returned as n arrays.

    Args:
        path: str or Path of a `.npy` file of version 1 or 2, written by NumPy 1 or 2.

    Returns:
        List of n numeric arrays in native byte order. Arrays may be empty or read-only.

    Raises:
        UnreadableFileError: The file cannot be read; the message is one line with the file's name. No code from the
            file is executed.
    """
    path = pathlib.Path(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UnreadableError("is not a regular file")
        with path.open("rb") as file:
            return _entries(file)
    except FileNotFoundError:
        raise UnreadableFileError(path, "no such file") from None
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror})") from error
    except UnreadableError as error:
        raise UnreadableFileError(path, error) from error.__cause__
    except Exception as error:  # parsers raise exceptions of any class for arbitrary bytes
        reason = f"is damaged or incomplete ({type(error).__name__}: {str(error)[:200]})"
        raise UnreadableFileError(path, reason) from error


def _entries(file):
    if file.read(len(MAGIC)) != MAGIC:
        raise UnreadableError("is not a .npy file")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise UnreadableError("is a .npy file of version {}.{}; only 1.0 and 2.0 are supported".format(*version))
    shape, is_fortran, dtype = HEADERS[version](file)
    if not shape:
        raise UnreadableError("contains a single value, not an array of arrays")
    if dtype.hasobject:
        return _objects(safe_pickle.load(file, NAMES), shape)
    return _numbers(file.read(), shape, dtype, is_fortran)


def _numbers(data, shape, dtype, is_fortran):
    if dtype.kind not in "biuf":
        raise UnreadableError(f"contains an array of {dtype}, which is not a numeric dtype")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UnreadableError(f"has {len(data)} bytes for an array of {dtype} of shape {list(shape)}")
    _check_rows(shape, len(data))
    flat = np.frombuffer(data, dtype)
    return list(flat.astype(dtype.newbyteorder("="), copy=False).reshape(shape, order="FC"[not is_fortran]))


def _objects(content, shape):
    if not isinstance(content, Array) or content.shape != shape:
        raise UnreadableError(f"its header declares objects of shape {list(shape)}, its pickle contains another object")
    _check_rows(shape, len(content.items))
    arrays = [_as_array(item) for item in content.items]
    if sum(array.nbytes for array in arrays) > MAX_BYTES:
        raise UnreadableError(f"contains arrays of more than {__name__}.MAX_BYTES = {MAX_BYTES} bytes")
    if len(shape) == 1:
        return arrays
    if any(array.ndim for array in arrays):  # a small file could refer to one large array many times
        raise UnreadableError("contains arrays in an array with more than one axis")
    size = math.prod(shape[1:])
    rows = (arrays[start : start + size] for start in range(0, len(arrays), size))
    return [np.array(row).reshape(shape[1:]) for row in rows]


def _check_rows(shape, size):
    """Rejects rows without elements: they take no space, so a small file could declare any number of them."""
    if shape[0] and not size:
        raise UnreadableError(f"contains an array of shape {list(shape)}, which has no elements")


def _as_array(item):
    """A numeric array; a single number becomes an array without axes."""
    if isinstance(item, numpy_pickle.Array) and getattr(item, "items", None) is None:
        return item.array()
    array = np.asarray(item) if isinstance(item, int | float) else None
    if array is None or array.dtype == object:  # the dtype of integers beyond 64 bits
        raise UnreadableError("contains objects that are neither numeric arrays nor numbers")
    return array
