"""Checks `.keras` and `.weights.h5` files before Keras reads them.

Keras reports a damaged `.keras` file as missing, reads files whose checksums do not fit, and accepts weights that are
not finite. HDF5 itself follows links to other files, and arrays may be larger than the file that declares them.
"""

import io
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular

WEIGHTS = "model.weights.h5"


def check(path):
    """Checks that a file is whole, holds all its arrays itself, and that all floating-point numbers in it are finite.

    Args:
        path: str or Path of a `.keras` or a `.weights.h5` file.

    Raises:
        DataError: The file is missing or damaged, has links, arrays in other files or of more bytes than are stored, or
            numbers that are not finite; the message is one line.
    """
    import h5py

    path = pathlib.Path(path)
    if not regular(path).is_file():
        raise DataError(path, "is a folder, not a file" if path.is_dir() else "no such file")
    kind = ".keras" if path.suffix == ".keras" else ".weights.h5"
    try:
        if kind != ".keras":
            _check_apart(path)
        with h5py.File(io.BytesIO(_weights(path)) if kind == ".keras" else path, "r") as file:
            _check_group(path, file)
            file.visititems(lambda name, stored: _check_item(path, name, stored))
    except DataError:
        raise
    except Exception as error:  # zipfile and h5py raise exceptions of any class for damaged files
        raise DataError(path, f"is damaged or no {kind} file ({type(error).__name__}: {str(error)[:200]})") from error


WALK = "import sys, h5py\nwith h5py.File(sys.argv[1]) as file: file.visititems(lambda name, item: None)"


def _check_apart(path):
    """Opens all that is in a file in a process of its own, which takes 0.2 s.

    HDF5 before 2.0 frees memory that it does not own where a list of links is damaged. TensorFlow 2.21 needs such a
    version.

    Raises:
        DataError: the process crashed. Other errors are left to this one.
    """
    import h5py

    if h5py.version.hdf5_version_tuple >= (2,) or not sys.executable:
        return
    walk = [sys.executable, "-P", "-c", WALK, os.path.abspath(path)]
    done = subprocess.run(walk, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    if done.returncode not in (0, 1):
        raise DataError(path, "is damaged: HDF5 crashed when it looked at all that is in the file")


def load(path):
    """The Keras model in a `.keras` file, not compiled, after `check`.

    Raises:
        DataError: as `check`, and if Keras cannot make the model; the message is one line.
    """
    import keras

    check(path)
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # constructors and Keras raise exceptions of any class
        raise DataError(path, f"cannot be loaded ({type(error).__name__}: {str(error)[:300]})") from error


def _weights(path):
    """The bytes of the weights in a `.keras` file, after all checksums were compared."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise DataError(path, f"is damaged: the checksum of {damaged} does not fit")
        if WEIGHTS not in archive.namelist():
            raise DataError(path, f"is no .keras file: it has no {WEIGHTS}")
        content = archive.read(WEIGHTS)
    if content[8:9] > b"\1":  # version of the superblock: lists of links, see `_check_apart`
        raise DataError(path, f"its {WEIGHTS} is in a format of HDF5 that Keras does not write")
    return content


def _check_item(path, name, item):
    import h5py

    if isinstance(item, h5py.Group):
        _check_group(path, item)
    elif item.dtype.kind in "fiubV":
        _check_array(path, name, item)


def _check_group(path, group):
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError(path, f"{group.name}/{name} is a link to another place")


def _check_array(path, name, stored):
    if stored.external or stored.is_virtual:
        raise DataError(path, f"{name} is stored in another file")
    if stored.id.get_create_plist().get_nfilters():  # HDF5 1.14 reads beyond the end of what unpacks to fewer bytes
        raise DataError(path, f"{name} is compressed, which Keras does not do")
    if stored.id.get_storage_size() != stored.nbytes:
        raise DataError(path, f"{name} has {stored.nbytes} bytes, of which {stored.id.get_storage_size()} are stored")
    if stored.dtype.kind == "f" and not np.isfinite(stored[()]).all():
        raise DataError(path, f"{name} has numbers that are not finite")
