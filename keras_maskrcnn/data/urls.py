"""Files of URLs such as `gs://bucket/train.tfrecord`, which TensorFlow's file systems read and write."""

import contextlib
import errno
import fnmatch
import os
import pathlib
import re
import stat
import types

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")  # a single letter is a drive of Windows


def as_path(path):
    """Returns a `Url` for text with a scheme, such as `gs://bucket/x`, else a `pathlib.Path`; also a type of arguments.

    `pathlib` alone would turn two slashes into one.
    """
    text = os.fspath(path)
    return Url(text) if _SCHEME.match(text) else pathlib.Path(text)


class Url(os.PathLike):
    """A file or folder of a URL, with those methods of `pathlib.Path` that readers and writers of records need.

    Files are complete when they are closed. Errors are those of `pathlib`: `FileNotFoundError`, else `OSError`.

    Args:
        text: URL in a scheme that TensorFlow knows: `gs://`, `file://`, `ram://`, or one that a package registers.
    """

    def __init__(self, text):
        self._text = text.rstrip("/")

    def __fspath__(self):
        return self._text

    __str__ = __fspath__

    def __repr__(self):
        return f"Url({self._text!r})"

    def __eq__(self, other):
        return isinstance(other, Url) and str(self) == str(other)

    def __hash__(self):
        return hash(self._text)

    def __lt__(self, other):
        return str(self) < str(other)

    def __truediv__(self, name):
        return Url(f"{self._text}/{name}")

    @property
    def name(self):
        """The part after the last slash."""
        return self._text.rpartition("/")[2]

    @property
    def parent(self):
        """The part before the last slash."""
        return Url(self._text.rpartition("/")[0])

    @property
    def suffix(self):
        """The ending of the name, with its dot."""
        return pathlib.PurePosixPath(self.name).suffix

    @property
    def stem(self):
        """The name without its ending."""
        return pathlib.PurePosixPath(self.name).stem

    def with_name(self, name):
        """Returns the URL of another file in the same folder."""
        return self.parent / name

    def resolve(self):
        """Returns this URL, which depends on no working directory."""
        return self

    def stat(self):
        """Returns `st_size` and `st_mode`, in one request."""
        with _files(self) as files:
            found = files.stat(self._text)
        return types.SimpleNamespace(st_size=found.length, st_mode=stat.S_IFDIR if found.is_directory else stat.S_IFREG)

    def _mode(self):
        try:
            return self.stat().st_mode
        except FileNotFoundError:
            return 0

    def exists(self):
        """Whether there is a file or folder."""
        return self._mode() != 0

    def is_file(self):
        """Whether there is a file."""
        return self._mode() == stat.S_IFREG

    def is_dir(self):
        """Whether there is a folder."""
        return self._mode() == stat.S_IFDIR

    def iterdir(self):
        """Returns what is in the folder, in one request: a list of URLs."""
        with _files(self) as files:
            return [self / name.rstrip("/") for name in files.listdir(self._text)]

    def glob(self, pattern):
        """Returns the files in the folder whose names match a pattern: a list of URLs, empty without the folder."""
        try:
            return [child for child in self.iterdir() if fnmatch.fnmatchcase(child.name, pattern)]
        except FileNotFoundError:
            return []

    def open(self, mode="rb"):
        """Opens the file in a binary mode."""
        with _files(self) as files:
            return _File(self, files.GFile(self._text, mode))

    def read_text(self, encoding="utf-8"):
        """Returns the content as text."""
        with self.open() as file:
            return file.read().decode(encoding)

    def write_text(self, text, encoding="utf-8"):
        """Writes text."""
        with self.open("wb") as file:
            file.write(text.encode(encoding))

    def mkdir(self, parents=True, exist_ok=True):
        """Creates the folder and those above it, where the file system has folders."""
        with _files(self) as files:
            files.makedirs(self._text)

    def replace(self, target):
        """Renames the file to another URL of the file system."""
        with _files(self) as files:
            files.rename(self._text, str(target), overwrite=True)

    def unlink(self, missing_ok=False):
        """Deletes the file."""
        with contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext(), _files(self) as files:
            files.remove(self._text)


class _File(contextlib.AbstractContextManager):
    """An open file, whose errors are those of Python's files."""

    def __init__(self, url, file):
        self._url, self._file = url, file

    def read(self, count=-1):
        with _files(self._url):
            return self._file.read(count)

    def seek(self, offset):
        with _files(self._url):
            self._file.seek(offset)

    def write(self, content):
        with _files(self._url):
            self._file.write(content)

    def __exit__(self, *error):
        with _files(self._url):
            self._file.close()


@contextlib.contextmanager
def _files(url):
    """Yields TensorFlow's functions for files; its errors are raised as those of Python."""
    try:
        import tensorflow as tf
    except ModuleNotFoundError:
        from keras_maskrcnn.data.errors import DataError  # here: arguments are parsed without the packages of readers

        raise DataError(url, "is a URL, which TensorFlow reads, and TensorFlow is not installed") from None
    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(url)) from None
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, " ".join(error.message.split()), str(url)) from error
