"""Batches prepared in processes, by Google's `grain`, where threads would wait for the lock of the interpreter.

This module does not import Keras, so that the processes do not either.
"""

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import types
import weakref
from multiprocessing import connection, parent_process

import numpy as np

from keras_maskrcnn.data.cache import skip
from keras_maskrcnn.data.errors import DataError


class Processes:
    """Batches of an endless sequence, each prepared in one of several processes ahead of its use.

    The processes start with the first batch. Batch n comes from process n modulo `workers`, so the sequence does not
    depend on how fast they are. What they note (samples that cannot be read, images with too many instances) is noted
    in this process.

    Args:
        batch: Function from the number of a batch to a dict of arrays; it is sent to the processes once.
        rows: The `rows.Rows` that `batch` takes rows from.
        workers: Number of processes.

    Raises:
        ValueError: `grain` is not installed.
    """

    def __init__(self, batch, rows, workers):
        self._grain = _grain()
        self._batch, self._rows, self._workers = batch, rows, workers
        self._streams, self._first, self._expected = [], {}, None
        self._source = type(rows.dataset).__name__

    def __call__(self, number):
        """Returns a batch: a dict of arrays. In sequence it is prepared ahead; another number restarts there.

        Raises:
            DataError: No sample can be read, the data set cannot be sent to another process, or a process was killed.
        """
        expected, self._expected = self._expected, None  # unknown where Ctrl-C interrupts the following
        try:
            if not self._streams:
                self._open(number)
            elif number != expected:
                self._seek(number)
            arrays, notes = self._first.pop(number, None) or next(self._streams[number % self._workers])
        except Exception as error:
            self.close()
            if isinstance(error, DataError):  # to which grain has added lines
                raise DataError(error.source, error.reason) from None
            if isinstance(error, RuntimeError) and "was terminated unexpectedly" in str(error):  # grain's own error
                raise DataError(self._source, f"a process that prepares batches was killed: {error}") from None
            raise
        self._expected = number + 1
        _take_notes(notes, self._rows)
        return {name: np.array(array) for name, array in arrays.items()}  # out of memory that processes share

    def _open(self, first):
        """Starts all processes, and waits for the first batch of each."""
        task = _Task(self._pickled())
        self._streams = [self._stream(task, worker) for worker in range(self._workers)]
        self._finalizer = weakref.finalize(self, _close, self._streams, self._first)
        self._seek(first)
        with _main_left_out():
            for stream in self._streams:
                stream.start_prefetch()
            numbers = range(first, first + self._workers)
            self._first.update({number: next(self._streams[number % self._workers]) for number in numbers})

    def _pickled(self):
        import cloudpickle  # which grain needs

        try:
            return cloudpickle.dumps((self._batch, self._rows))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise DataError(self._source, f"cannot be sent to another process: {error}") from None

    def _stream(self, task, worker):
        """Returns an iterator over the batches of one process: the numbers `worker` + i · `workers`."""
        numbers = self._grain.MapDataset.range(worker, sys.maxsize, self._workers)
        batches = numbers.map(task).to_iter_dataset(self._grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = self._grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=1)
        return iter(batches.mp_prefetch(options, worker_init_fn=_begin))

    def _seek(self, number):
        self._first.clear()
        for worker, stream in enumerate(self._streams):
            self._grain.experimental.set_next_index(stream, -((worker - number) // self._workers))

    def close(self):
        """Ends the processes; the next batch starts others."""
        if self._streams:
            self._finalizer()


class _Task:
    """What a process does for each number: a batch, and what was noted in this process since the one before.

    Args:
        pickled: bytes, the function from a number to a batch, and its `Rows`.
    """

    def __init__(self, pickled):
        self.pickled, self.batch = pickled, None

    def __call__(self, number):
        if self.batch is None:  # the first call in a process
            self.batch, rows = pickle.loads(self.pickled)
            self.notes = rows.dataset.skipped, rows.prepare.overfull
        known = [len(notes) for notes in self.notes]
        arrays = self.batch(number)
        return arrays, [list(notes.items())[count:] for notes, count in zip(self.notes, known, strict=True)]


def _take_notes(notes, rows):
    skipped, overfull = notes
    for source, reason in skipped:
        skip(rows.dataset, DataError(source, reason))
    for index, count in overfull:
        rows.prepare.note_overfull({index: count}, f"image {index}")


def _begin(worker, workers):
    """Sets up a process: Ctrl-C is the parent's business, messages are too, and it ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("keras_maskrcnn").setLevel(logging.CRITICAL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    connection.wait([parent_process().sentinel])
    os._exit(1)


@contextlib.contextmanager
def _main_left_out():
    """Starts processes without importing the program's main module in them, which may import TensorFlow or train.

    `grain` pickles what is defined in that module by value.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _close(streams, first):
    """Ends processes, and frees the memory that they share with this one: at exit it would be too late."""
    for stream in streams:
        stream.close()
    streams.clear()
    first.clear()


def _grain():
    try:
        import grain
        from absl import flags
    except ImportError:
        raise ValueError('backend "grain" needs the package grain: pip install "keras3-maskrcnn[grain]"') from None
    if not flags.FLAGS.is_parsed():  # grain reads its options from absl's flags, which a program may not use
        flags.FLAGS.mark_as_parsed()
    return grain
