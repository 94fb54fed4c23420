"""Checks `.keras` and `.weights.h5` files before Keras reads them.

Keras reports a damaged `.keras` file as missing, reads files whose checksums do not fit, and accepts weights that are
not finite.
"""

import io
import pathlib
import zipfile

import numpy as np

from keras_maskrcnn.data.sample import DataError

WEIGHTS = "model.weights.h5"


def check(path):
    """Checks that a file is whole and that all floating-point numbers in it are finite.

    Args:
        path: str or Path of a `.keras` or a `.weights.h5` file.

    Raises:
        DataError: The file is missing, damaged or has numbers that are not finite; the message is one line.
    """
    import h5py

    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(path, "is a folder, not a file" if path.is_dir() else "no such file")
    kind = ".keras" if path.suffix == ".keras" else ".weights.h5"
    try:
        with h5py.File(io.BytesIO(_weights(path)) if kind == ".keras" else path, "r") as file:
            file.visititems(lambda name, stored: _check_finite(path, name, stored))
    except DataError:
        raise
    except Exception as error:  # zipfile and h5py raise exceptions of any class for damaged files
        raise DataError(path, f"is damaged or no {kind} file ({type(error).__name__}: {str(error)[:200]})") from error


def _weights(path):
    """The bytes of the weights in a `.keras` file, after all checksums were compared."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise DataError(path, f"is damaged: the checksum of {damaged} does not fit")
        if WEIGHTS not in archive.namelist():
            raise DataError(path, f"is no .keras file: it has no {WEIGHTS}")
        return archive.read(WEIGHTS)


def _check_finite(path, name, stored):
    if getattr(stored, "dtype", np.dtype("O")).kind == "f" and not np.isfinite(stored[()]).all():
        raise DataError(path, f"{name} has numbers that are not finite")
