"""Questions about paths, for the functions that recognise formats."""

import pathlib

from keras_maskrcnn.data.outlines import read_json
from keras_maskrcnn.data.sample import DataError


def folders(path):
    """Returns the folders in a folder, sorted; none if it is a file or missing."""
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


def content_with(path, keys):
    """Returns the content of a JSON file if it is a dict with some keys; otherwise None."""
    try:
        content = read_json(path)
    except DataError:
        return None
    return content if isinstance(content, dict) and all(key in content for key in keys) else None


def is_json(path, keys):
    """Whether a file is JSON, a dict with some keys."""
    return content_with(path, keys) is not None


def last_part(name):
    """Returns the last part of a path that was written on Windows or on another system."""
    return pathlib.PureWindowsPath(name).name
