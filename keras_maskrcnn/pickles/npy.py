"""`.npy` files whose array holds arrays (`dtype=object`), as ragged labels and boxes are saved, without unpickling.

NumPy writes such an array as a header and a pickle, and reads it back with `allow_pickle=True` alone, which runs what
the pickle says. Here the header goes through NumPy's own parser (literals only), the pickle through `safe_pickle`.
"""

import math
import pathlib

import numpy as np

from keras_maskrcnn.pickles import numpy_pickle, safe_pickle
from keras_maskrcnn.pickles.safe_pickle import UnreadableError

MAGIC = b"\x93NUMPY"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
OBJECT = ("O", "O4", "O8")  # O4 and O8 from machines of 32 and 64 bits


class UnreadableFileError(UnreadableError):
    """A file that is not read, in one line.

    Args:
        path: The file.
        reason: Why.
    """

    def __init__(self, path, reason):
        self.path, self.reason = path, " ".join(str(reason).split())
        super().__init__(f"{path}: {self.reason}")

    def __reduce__(self):
        return type(self), (self.path, self.reason)


class Objects:
    """Stands for numpy.dtype("O"), which has no byte order."""

    def build(self, *_state):
        """Takes a state that says nothing."""


class Array(numpy_pickle.Array):
    """Stands for numpy.ndarray, of numbers or of objects.

    Attributes:
        shape: Of an array of objects; None for one of numbers.
        items: Its objects, the last axis running fastest.
    """

    shape = items = None

    def build(self, version, shape, dtype, is_fortran, data):
        """Takes the content; that of an array of objects is a list, in the same order whatever `is_fortran` says."""
        if not isinstance(dtype, Objects):
            return super().build(version, shape, dtype, is_fortran, data)
        if type(data) is not list or math.prod(shape) != len(data):
            raise UnreadableError(f"it holds an array of shape {str(shape)[:80]} without as many objects")
        self.shape, self.items = shape, data


def _dtype(code, *flags):
    return Objects() if code in OBJECT else numpy_pickle.Dtype(code, *flags)


NAMES = {
    **numpy_pickle.NAMES,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": Array for core in ("core", "_core")},
}


def read_objects(path):
    """Reads the arrays that an array of objects holds, or the entries of an array of numbers.

    `numpy.array(arrays, dtype=object)` of arrays that happen to have one shape makes an array [n, *shape] of single
    numbers; its n entries come as arrays, as they were before.

    Args:
        path: str or Path of a `.npy` file of version 1 or 2, written by NumPy 1 or 2.

    Returns:
        List of n arrays of numbers with the machine's byte order, some of them perhaps empty. They may be read-only.

    Raises:
        UnreadableFileError: In one line, the file and why it is not read. Nothing that the file holds has been run.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            return _entries(file)
    except FileNotFoundError:
        raise UnreadableFileError(path, "no such file") from None
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror})") from error
    except UnreadableError as error:
        raise UnreadableFileError(path, error) from error.__cause__
    except Exception as error:  # any bytes may come, which parsers answer with errors of any class
        reason = f"is damaged or incomplete ({type(error).__name__}: {str(error)[:200]})"
        raise UnreadableFileError(path, reason) from error


def _entries(file):
    if file.read(len(MAGIC)) != MAGIC:
        raise UnreadableError("is no .npy file")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise UnreadableError("is a .npy file of version {}.{}, and only 1.0 and 2.0 are read".format(*version))
    shape, is_fortran, dtype = HEADERS[version](file)
    if not shape:
        raise UnreadableError("holds a single value, not an array of arrays")
    if dtype.hasobject:
        return _objects(safe_pickle.load(file, NAMES), shape)
    return _numbers(file.read(), shape, dtype, is_fortran)


def _numbers(data, shape, dtype, is_fortran):
    if dtype.kind not in "biuf":
        raise UnreadableError(f"holds an array of {dtype}, which is no plain number")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UnreadableError(f"has {len(data)} bytes for an array of {dtype} of shape {list(shape)}")
    _check_rows(shape, len(data))
    flat = np.frombuffer(data, dtype)
    return list(flat.astype(dtype.newbyteorder("="), copy=False).reshape(shape, order="FC"[not is_fortran]))


def _objects(content, shape):
    if not isinstance(content, Array) or content.shape != shape:
        raise UnreadableError(f"its header tells of objects of shape {list(shape)}, its pickle of something else")
    _check_rows(shape, len(content.items))
    arrays = [_as_array(item) for item in content.items]
    if len(shape) == 1:
        return arrays
    if any(array.ndim for array in arrays):  # one that is named many times over must not be copied as often
        raise UnreadableError("it holds arrays in an array of more than one axis, not numbers")
    size = math.prod(shape[1:])
    rows = (arrays[start : start + size] for start in range(0, len(arrays), size))
    return [np.array(row).reshape(shape[1:]) for row in rows]


def _check_rows(shape, size):
    """Rows without numbers take no room in a file, so that a short one could ask for any number of them."""
    if shape[0] and not size:
        raise UnreadableError(f"holds an array of shape {list(shape)}, which has no numbers")


def _as_array(item):
    """An array of numbers, or a single number as an array without axes."""
    if isinstance(item, numpy_pickle.Array) and getattr(item, "items", None) is None:
        return item.array()
    array = np.asarray(item) if isinstance(item, int | float) else None
    if array is None or array.dtype == object:  # which NumPy makes of Python's integers beyond 64 bits
        raise UnreadableError("it holds objects that are neither arrays of numbers nor numbers")
    return array
