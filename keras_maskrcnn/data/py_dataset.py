"""Batches without TensorFlow: a keras.utils.PyDataset with the same content as the tf.data pipeline."""

import keras
import numpy as np

from keras_maskrcnn.data.prepare import split


class NumpyBatches(keras.utils.PyDataset):
    """Batches of rows, as NumPy arrays.

    Args:
        rows: A `pipeline.Rows`.
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
        if self.repeat:
            return None
        full, rest = divmod(len(self.rows), self.batch_size)
        return full + (rest > 0 and not self.drop_remainder)

    def on_epoch_end(self):
        """Advances to the order and the augmentation of the next epoch."""
        self.epoch += 1

    def __getitem__(self, index):
        """Returns batch `index` of the epoch as (x, y)."""
        places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        if not self.repeat:
            places = places[places < len(self.rows)]
        rows = [self._row(int(place)) for place in places]
        return split({name: np.stack([row[name] for row in rows]) for name in rows[0]})

    def _row(self, place):
        """Returns the row at a position of the sequence, or the next readable row."""
        if self.repeat:
            epoch, place = divmod(self.rows.start + place, len(self.rows))
        else:
            epoch = self.epoch
        return self.rows.row_or_next(*self.rows.order(epoch)[place].tolist(), epoch)
