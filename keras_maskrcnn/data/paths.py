"""Paths that users give and names that annotation files hold: what is opened, and where a name may lead."""

import os
import pathlib
import stat

from keras_maskrcnn.data.errors import DataError, shown

OUTSIDE = "which is outside the folder of images"
REMEDY = " (read it with allow_outside=True)"


def folders(path):
    """Returns the folders in a folder, sorted; none if it is a file or missing."""
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


def last_part(name):
    """Returns the last part of a path that was written on Windows or on another system."""
    return pathlib.PureWindowsPath(name).name


def regular(path):
    """Returns a path that can be opened without the risk that opening or reading it never ends.

    Opening a FIFO without a writer blocks, and /dev/zero has no end. All files of users are opened through this
    function; links are followed. A missing file passes: opening it raises the error.

    Args:
        path: str, Path or `Url`; of URLs only `file://` can lead to such a place.

    Raises:
        DataError: it is a FIFO, a socket or a device, or no path at all.
    """
    try:
        mode = os.stat(os.fspath(path).removeprefix("file://")).st_mode
    except OSError:
        return path
    except ValueError as error:  # a null character
        raise DataError(path, f"cannot be opened ({error})") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(path, "is not a regular file")
    return path


def leads_out(name):
    """Whether the name of a file is absolute or leads out of the folder that it is relative to."""
    place = os.path.normpath(name)
    return os.path.isabs(place) or bool(os.path.splitdrive(place)[0]) or place.split(os.sep)[0] == os.pardir


def inside(folder, name, source, allow_outside=None):
    """Returns the path of a file in a folder, by the name that another file has for it.

    `..` is resolved in the text of the name, before any link: with a link `link` in the folder, `link/../a.png` is
    `a.png` in the folder, and not beside the target of the link.

    Args:
        folder: Path of the folder.
        name: Name, with slashes or backslashes.
        source: File that holds the name, for messages.
        allow_outside: Whether the name may lead elsewhere; None if the reader has no such option.

    Raises:
        DataError: the name is absolute or leads out of the folder.
    """
    name = str(name).replace("\\", "/")
    if allow_outside:
        return pathlib.Path(folder, name)
    if leads_out(name):
        raise DataError(source, f"names the file {shown(name)}, {OUTSIDE}{'' if allow_outside is None else REMEDY}")
    return pathlib.Path(folder, os.path.normpath(name))
