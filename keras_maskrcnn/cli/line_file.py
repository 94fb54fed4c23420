"""A file of JSON lines that is appended to by one process, which may be killed at any moment."""

import contextlib
import json
import os
import time

try:
    import fcntl
except ImportError:  # on Windows, where two processes on one file are not noticed
    fcntl = None  # type: ignore[assignment]

from keras_maskrcnn.data.json_text import loads
from keras_maskrcnn.data.paths import regular

SYNC_SECONDS = 10


class LineFile:
    """JSON objects, one a line; after `read`, each line is whole.

    A line is handed to the operating system in one call before `append` returns, so that a process that is killed loses
    none of its lines, and leaves at most one incomplete line, the last, which `read` cuts off. The file is flushed to
    the disk (fsync) when it is created and closed, and when `SYNC_SECONDS` have passed since the last time: a power
    failure loses the lines of these seconds.

    Args:
        path: Path of the file, created with its folder if it is missing.

    Raises:
        ValueError: another process has the file open.
    """

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(regular(path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            self._sync()
            self._sync_folder()
        except BaseException:
            os.close(self._file)
            raise

    def read(self):
        """Yields each line as `read_lines` does, and cuts off an incomplete one at the end."""
        end = 0
        for size, content in read_lines(self.path):
            end += size
            yield content
        if end < os.fstat(self._file).st_size:
            os.ftruncate(self._file, end)

    def append(self, content):
        """Appends an object.

        Raises:
            OSError: it could not be written, such as on a full disk; the lines before it are kept.
        """
        line = json.dumps(content, allow_nan=False).encode() + b"\n"
        end = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            os.ftruncate(self._file, end)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def close(self):
        """Flushes the file to the disk and closes it."""
        try:
            self._sync()
        finally:
            os.close(self._file)

    def _lock(self):
        """The lock ends with the process, however that ends."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path}: another process is writing this file") from None

    def _sync(self):
        os.fsync(self._file)
        self._synced = time.monotonic()

    def _sync_folder(self):
        """Flushes the name of the file to the disk, where folders can be opened."""
        with contextlib.suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def read_lines(path):
    """Yields the length in bytes and the object of each line that ends; None for one that is no JSON object.

    Raises:
        DataError: the path is a pipe or a device, which may have no end.
    """
    with open(regular(path), "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield len(line), _object(line)


def _object(line):
    try:
        content = loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
