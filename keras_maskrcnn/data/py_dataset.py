"""Batches without tf.data: keras.utils.PyDatasets with the same content as the tf.data pipeline."""

import functools

import keras

from keras_maskrcnn.data.exit_gate import ExitGate
from keras_maskrcnn.data.prepare import split
from keras_maskrcnn.data.processes import Processes


class NumpyBatches(keras.utils.PyDataset):
    """Batches of rows, as NumPy arrays, prepared in threads of Keras.

    Args:
        rows: A `rows.Rows`.
        batch_size: B.
        repeat: Whether the epochs repeat without end in one sequence.
        drop_remainder: Leave out a last batch that is not full.
        workers: Number of threads.
    """

    def __init__(self, rows, batch_size, repeat, drop_remainder, workers=1):
        super().__init__(workers=workers)
        self.rows, self.batch_size, self.repeat, self.drop_remainder = rows, batch_size, repeat, drop_remainder
        self.epoch = 0

    @property
    def num_batches(self):
        """Batches per epoch; None if they repeat without end."""
        return None if self.repeat else self.rows.num_batches(self.batch_size, self.drop_remainder)

    def on_epoch_end(self):
        """Advances to the order and the augmentation of the next epoch."""
        self.epoch += 1

    def __getitem__(self, index):
        """Returns batch `index` of the epoch as (x, y)."""
        return split(self.rows.batch(index, self.batch_size, None if self.repeat else self.epoch))


class ProcessBatches(NumpyBatches):
    """The same batches, prepared in processes.

    Args:
        rows: A `rows.Rows`.
        batch_size: B.
        repeat: Whether the epochs repeat without end in one sequence.
        drop_remainder: Leave out a last batch that is not full.
        workers: Number of processes; they start with the first batch and go on with the next epoch until `close`.
    """

    def __init__(self, rows, batch_size, repeat, drop_remainder, workers=1):
        super().__init__(rows, batch_size, repeat, drop_remainder, workers=1)  # Keras' threads: batches are in sequence
        batch = functools.partial(rows.numbered_batch, batch_size=batch_size, per_epoch=self.num_batches)
        self._processes = Processes(batch, rows, workers)
        self._gate, self._antialias = ExitGate(), None

    def __getitem__(self, index):
        """Returns batch `index` of the epoch as (x, y)."""
        with self._gate as is_open:
            if not is_open:
                raise IndexError("the program ends")
            if self._antialias != self.rows.prepare.antialias:  # `fit` may set it after it has looked at a batch
                self._processes.close()
                self._antialias = self.rows.prepare.antialias
            return split(self._processes(index + self.epoch * (self.num_batches or 0)))

    def close(self):
        """Ends the processes; they also end with the program, and when the batches are deleted."""
        self._processes.close()
