"""Arrays made from large files once, and kept in a folder of the user, so that the files open in seconds the next time.

The folder is that in the variable KMR_CACHE, else `~/.cache/keras_maskrcnn`; it can be deleted at any time. Without a
place to write, the arrays are made each time.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import tempfile

import numpy as np

VERSION = 1  # of what is kept; another number makes all of it anew
MIN_BYTES = 2**24  # of the files whose arrays are kept; smaller ones are read as fast
HEAD_BYTES = 2**20
logger = logging.getLogger(__name__)


def folder():
    """Path of the folder; raises a RuntimeError if the user has none."""
    return pathlib.Path(os.environ.get("KMR_CACHE") or "~/.cache/keras_maskrcnn").expanduser()


def state(path):
    """(size, time of the last change) of a file."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def arrays_of(path, kind, make):
    """Returns the arrays of a file: those kept, or those that `make` returns, which are then kept.

    Args:
        path: Path of the file. Its arrays are made anew if its size, its time or its first megabyte has changed.
        kind: str, what is made of the file, with the options that change it.
        make: function without arguments that returns a dict from names to arrays without Python objects.

    Returns:
        dict of arrays.
    """
    if os.stat(path).st_size < MIN_BYTES:
        return make()
    try:
        key, place = _key(path, kind), _place(path, kind)
    except RuntimeError as error:  # the user has no home
        logger.warning("%s: its index is not kept (%s)", path, error)
        return make()
    found = _load(place, key)
    if found is None:
        found = make()
        _save(place, key, found)
    return found


def is_kept(path, kind):
    """Whether arrays of this kind are kept for a file as it is now; they are not read."""
    try:
        stored = _stored_key(_place(path, kind))
        return stored is not None and stored == _key(path, kind)
    except (OSError, RuntimeError):
        return False


def _place(path, kind):
    name = hashlib.sha256(f"{os.path.abspath(path)}\n{kind}".encode("utf-8", "surrogateescape")).hexdigest()
    return folder() / f"{name[:32]}.npz"


def _key(path, kind):
    with open(path, "rb") as file:
        head = hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
    return f"{VERSION} {kind} {state(path)} {head}"


def _stored_key(place):
    """The key of a file of arrays, None for any other file."""
    try:
        with np.load(place, allow_pickle=False) as content:
            return str(content["key"])
    except Exception:  # zip files and arrays with damage raise exceptions of any class
        return None


def _load(place, key):
    if _stored_key(place) != key:
        return None
    try:
        with np.load(place, allow_pickle=False) as content:
            return {name: content[name] for name in content.files if name != "key"}
    except Exception as error:
        logger.warning("%s is damaged and made anew (%s)", place, error)
        return None


def _save(place, key, arrays):
    """Writes a file that is complete or not there."""
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as file:
            temporary = file.name
            np.savez(file, key=np.array(key), **arrays)
        os.replace(temporary, place)
    except OSError as error:
        logger.warning("%s: the index of a large file cannot be kept (%s)", place.parent, error.strerror or error)
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
