"""What a target is, and how its files are changed and read.

A target is a function of a folder that writes a valid sample there and returns `case(rng)`, which changes something
(nothing where `rng` is None) and returns the function that reads it. Each case depends on its own `rng` only, so that
it can be repeated without those before it.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable

import changes

from keras_maskrcnn.data import DataError

MODULES = ("annotations", "masks", "arrays", "images", "weights", "models", "requests", "service", "runs")
TARGETS = {}


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        prepare: function of a folder, see above.
        module: the part of the name of its file `attempts_*.py`.
        quick: cases in the quick test.
        weight: share of the time of a long run.
        allowed: exceptions that are clean errors if their message is one line.
    """

    prepare: Callable
    module: str
    quick: int
    weight: float
    allowed: tuple


def target(name, quick=100, weight=1.0, allowed=(DataError,)):
    """Registers the decorated function as a target."""

    def register(prepare):
        module = prepare.__module__.removeprefix("attempts_")
        TARGETS[name] = Target(prepare, module, quick, weight, allowed)
        return prepare

    return register


LONGEST = 3000  # characters of a message
SPECIAL = ("fifo", "folder", "missing", "empty", "zeros", "loop", "secret")


def changed_files(folder, read, change=None, special=0.02, keep=()):
    """`case` that changes one file of a folder, and undoes it before the next.

    Args:
        folder: Path.
        read: function without arguments.
        change: function of a file's name, content and `rng` to its new content; None chooses by the name.
        special: share of cases where the file is replaced by a pipe, a device, a folder, …
        keep: names of files that stay as they are.
    """
    contents = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    places = [path for path in contents if path.name not in keep]
    touched = []

    def case(rng):
        while touched:
            path = touched.pop()
            removed(path)
            path.write_bytes(contents[path])
        if rng is None:
            return read
        path = rng.choice(places)
        touched.append(path)
        if rng.random() < special:
            replaced(path, rng.choice(SPECIAL))
        elif change:
            path.write_bytes(change(path.name, contents[path], rng))
        else:
            path.write_bytes(changes.by_name(path.name)(contents[path], rng))
        return read

    return case


def removed(path):
    """Removes what is at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replaced(path, kind):
    """Puts something else in the place of a file."""
    removed(path)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind in ("zeros", "loop", "secret"):
        path.symlink_to({"zeros": "/dev/zero", "loop": path.name, "secret": "/proc/self/mem"}[kind])


def read_all(make, most=20):
    """Opens a data set and reads its samples; raises the error of the last one if none can be read."""
    dataset, found, refused = make(), 0, None
    for position in range(min(len(dataset), most)):
        try:
            check_sample(dataset[position])
            found += 1
        except DataError as error:
            check_message(error)
            refused = error
    if refused is not None and not found:
        raise refused


def check_sample(sample):
    """Raises an AssertionError for a sample that breaks the contract of `data.sample`."""
    import numpy as np

    height, width = sample["image"].shape[:2]
    boxes, count = sample["boxes"], len(sample["labels"])
    assert sample["image"].ndim == 3 and sample["image"].size, sample["image"].shape
    assert sample["masks"].shape == (count, height, width) and boxes.shape == (count, 4)
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all(), boxes
    assert (sample["labels"] > 0).all(), sample["labels"]


class NotOneLineError(Exception):
    """The message of an error has several lines, is too long, or cannot be printed."""


def check_message(error):
    """Raises a `NotOneLineError` unless the message of an error is one printable line."""
    message = str(error)
    if not message or len(message) > LONGEST or len(message.splitlines()) > 1:
        raise NotOneLineError(f"{len(message)} characters in {len(message.splitlines())} lines: {message[:300]!r}")
    with contextlib.suppress(UnicodeEncodeError):
        message.encode()
        return
    raise NotOneLineError(f"a message that cannot be encoded: {message[:300]!r}")


def written(path, content):
    """Writes bytes, text or JSON, with the folders of the path; returns the path."""
    import json

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def drawn(path, size=(8, 10), mode="RGB", values=None):
    """Saves a small image, of the `values` if there are some; returns the path."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size[::-1], 90) if values is None else Image.fromarray(values)
    image.save(path)
    return path
