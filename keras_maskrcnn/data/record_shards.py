"""The records of TFRecord files, numbered through, at 8 bytes of memory per record."""

import concurrent.futures
import logging
import stat

import numpy as np

from keras_maskrcnn.data import kept, record_index, tf_record_file
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular
from keras_maskrcnn.data.record_index import SHARD
from keras_maskrcnn.data.urls import Url, as_path
from keras_maskrcnn.progress import bar

NO_DATA = (".part", record_index.ENDING)  # endings of files beside the records
REQUESTS = 32  # at a time, to a file system behind a URL
logger = logging.getLogger(__name__)


class Shards:
    """The records of files, each read when it is asked for.

    The lengths of the records come from the index beside the files, see `record_index`. Without one, all files are
    walked through once, with a progress bar; what is found is kept for large files of this machine, see `kept`.

    Args:
        path: file, the name of sharded files without `-00000-of-00010`, or a pattern such as `train.record-*`.

    Attributes:
        files: list of the paths, in order.

    Raises:
        DataError: there is no such file, a shard is missing, a file is truncated, compressed or no TFRecord file, or
            the index is damaged or belongs to other files.
    """

    def __init__(self, path):
        path = as_path(path)
        try:
            self.files, sizes = _files(path)
            lengths = _lengths(self.files, sizes, _indexed(self.files))
        except OSError as error:
            raise DataError(error.filename or path, f"cannot be read ({error.strerror})") from error
        self._starts = np.cumsum([0, *map(len, lengths)])
        self._offsets = np.zeros(self._starts[-1] + 1, np.int64)  # as if all files lay one after the other
        np.concatenate(lengths, out=self._offsets[1:])
        self._offsets[1:] += tf_record_file.FRAME
        np.cumsum(self._offsets, out=self._offsets)

    def __len__(self):
        return len(self._offsets) - 1

    def read(self, position):
        """Returns the content of a record and its place for messages."""
        shard = int(np.searchsorted(self._starts, position, "right")) - 1
        place = f"{self.files[shard]}, record {position - self._starts[shard]}"
        start, end = (self._offsets[position : position + 2] - self._offsets[self._starts[shard]]).tolist()
        return tf_record_file.read(self.files[shard], start, end - start - tf_record_file.FRAME, place), place


def write_index(path):
    """Writes the index of TFRecord files that another program wrote, see `record_index`; all files are walked through.

    Args:
        path: as for `Shards`; str, Path or URL. Of one of several sharded files the index of all is written.

    Returns:
        List of the paths of the written files, one for each name of sharded files.

    Raises:
        DataError: as for `Shards`, but an index that is there is replaced.
        OSError: the file cannot be written.
    """
    path = as_path(path)
    files, sizes = _files(path.with_name(SHARD.sub("", path.name)))
    found = {}
    for file, lengths in zip(files, _lengths(files, sizes, {}), strict=True):
        found.setdefault(record_index.path_of(file), {})[file.name] = lengths
    for index, lengths in found.items():
        record_index.write(index, lengths)
    return list(found)


def candidates(path):
    """Returns the paths that may be the files of a path or pattern, in order, by their names."""
    pattern = path.name.replace("**", "*")  # which `pathlib` refuses inside a name
    found = [file for file in path.parent.glob(pattern) if file.suffix not in NO_DATA]
    return sorted(found) or sorted(path.parent.glob(f"{path.name}-?????-of-?????"))


def _files(path):
    """(files, sizes) of a path or pattern, in order; all shards must be there."""
    if regular(path).is_file():
        return [path], [path.stat().st_size]
    entries = list(_each(candidates(path), lambda file: file.stat()))
    found = {file: entry.st_size for file, entry in entries if stat.S_ISREG(entry.st_mode)}
    if not found:
        raise DataError(path, "no such TFRecord file, nor shards of this name")
    _check_complete(found)
    return list(found), list(found.values())


def _check_complete(files):
    shards = {}
    for file in files:
        if match := SHARD.search(file.name):
            shards.setdefault((file.parent / file.name[: match.start()], int(match[2])), set()).add(int(match[1]))
    for (name, count), numbers in shards.items():
        if missing := sorted(set(range(count)) - numbers):
            raise DataError(name, f"shard {missing[0]} of {count} is missing")


def _indexed(files):
    """Content of the indices beside files: a dict from their paths to what `record_index.read` returns."""
    return dict(_each(dict.fromkeys(map(record_index.path_of, files)), record_index.read))


def _lengths(files, sizes, indices):
    """Lengths of the records of each file, a list of int64 [n], from the indices or from the files."""
    known = {file: indices.get(record_index.path_of(file)) for file in files}
    walked = [file for file, index in known.items() if not index]
    found = dict(_each(walked, _walked, bar("TFRecord files") if sum(sizes) >= kept.MIN_BYTES else None))
    if walked and isinstance(walked[0], Url):
        logger.warning("%s and others have no index: write it by data.write_index, to open them fast", walked[0])
    for file, size in zip(files, sizes, strict=True):
        if file not in found:
            found[file] = _of_index(known[file], file, size)
    return [found[file] for file in files]


def _walked(file):
    if isinstance(file, Url):
        return tf_record_file.lengths(file)
    return kept.arrays_of(file, "TFRecord lengths", lambda: {"lengths": tf_record_file.lengths(file)})["lengths"]


def _of_index(index, file, size):
    """Lengths of a file by the index; raises a DataError if these do not give its size."""
    path = record_index.path_of(file)
    if file.name not in index:
        raise DataError(path, f"does not name {file.name}: delete it, or write it again by data.write_index")
    lengths = index[file.name]
    expected = int(lengths.sum()) + tf_record_file.FRAME * len(lengths)
    if expected and not size:
        raise DataError(file, "is empty")
    if expected != size or lengths.min(initial=0) < 0 or lengths.max(initial=0) > size:  # whose sum may overflow
        what = f"has {size} bytes, and {expected} by {path.name}: it is truncated, or the index is that of another file"
        raise DataError(file, what)
    return lengths


def _each(paths, function, step=None):
    """Yields (path, function(path)) in order; requests to a URL, which take long, are made at the same time."""
    paths = list(paths)
    with concurrent.futures.ThreadPoolExecutor(REQUESTS if paths and isinstance(paths[0], Url) else 1) as pool:
        for done, pair in enumerate(zip(paths, pool.map(function, paths), strict=True), 1):
            yield pair
            if step:
                step(done, len(paths))
