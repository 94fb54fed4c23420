"""Files that are complete or as they were before, whatever stops the program while they are written."""

import contextlib
import errno
import os
import pathlib


def part(path):
    """The path of a file that is being written, `NAME.part.SUFFIX` beside `path`."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


@contextlib.contextmanager
def replacing(path):
    """Yields the path of a new file, see `part`, which replaces the one at `path` when the block has ended.

    If the block raises, the new file is deleted. If the process is killed, it stays, and the next writer of `path`
    replaces it. Its content is on the disk before it gets its name: a loss of power leaves one of the two files.

    Args:
        path: path of a file; of a symbolic link, the file that it leads to is replaced. A device or pipe is written
            itself.

    Raises:
        OSError: the file cannot be written, or the one that is there may not be; that one is kept.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    new = part(path)
    try:
        yield new
        with open(new, "rb") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write(path, text):
    """Writes a text file in UTF-8 with `replacing`; line ends stay as they are."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8", newline="")
