"""The rows of the batches: the order of an epoch, and the prepared sample at each position."""

import contextlib
import functools

import numpy as np

from keras_maskrcnn.data.cache import Cached, read_or_skip
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.sampling import Order


class Rows:
    """The order of an epoch and the row at each position, for both backends.

    Args:
        dataset: A Dataset.
        prepare: A Prepare.
        shuffle: Whether each epoch has a new order.
        seed: Non-negative int.
        sampling: Callable from a data set to the mean number of times that each sample is in an epoch, or None.

    Attributes:
        start: Position at which the sequence of all epochs starts, or goes on with the next epoch.
        shard: (index, count) of the process whose rows `batch` and `share` give, see `pipeline.batches`; None for all
            rows.
    """

    def __init__(self, dataset, prepare, shuffle, seed, sampling=None):
        self.start, self.shard = 0, None
        self.dataset, self.prepare, self.seed = dataset, prepare, seed
        self._failed_in_a_row, self._failure = 0, None
        # One readable sample is enough for an epoch that is not empty.
        if not any(read_or_skip(dataset, position) for position in range(len(dataset))):
            reasons = [f"no sample can be read, among them {source}: {why}" for source, why in dataset.skipped.items()]
            raise DataError(self.name, reasons[0] if reasons else "has no samples")
        self.order = Order(len(dataset), shuffle, seed, sampling and sampling(dataset))
        if dataset.labels_known and getattr(prepare.augment, "crop", None) is None:  # in a crop there are fewer
            counts = {self._index(place): len(dataset.labels_at(place)) for place in range(len(dataset))}
            counts = {index: count for index, count in counts.items() if count > prepare.max_instances}
            prepare.note_overfull(counts, f"{self.name} of {len(dataset)} images")

    def __len__(self):
        """Number of rows in an epoch."""
        return len(self.order)

    @property
    def name(self):
        """The class of the data set, for messages."""
        return type(self.dataset.dataset if isinstance(self.dataset, Cached) else self.dataset).__name__

    def divide(self, shard, batch_size):
        """Sets `shard`.

        Raises:
            ValueError: A batch cannot be divided among the processes.
        """
        if batch_size % shard[1]:
            raise ValueError(f"a batch of {batch_size} cannot be divided among {shard[1]} processes")
        self.shard = tuple(shard)

    def row(self, position, repeat, epoch):
        """Returns the row of a sample, or None where it cannot be read; arguments as for `row_or_next`."""
        sample = read_or_skip(self.dataset, position)
        if sample is None:
            self._failed_in_a_row += 1
            if self._failed_in_a_row > 2 * len(self.dataset):  # a lost disk would cause an endless loop of repeats
                raise DataError(self.name, "no sample can be read any more")
            return None
        self._failed_in_a_row = 0
        index = self._index(position)
        partner = functools.partial(self._other, position, epoch)
        return self.prepare(sample, np.random.default_rng([self.seed, epoch, index, repeat]), index, partner)

    def num_batches(self, batch_size, drop_remainder):
        """Returns the number of batches in an epoch."""
        full, rest = divmod(len(self), batch_size)
        return full + (rest > 0 and not drop_remainder)

    def batch(self, index, batch_size, epoch):
        """Returns batch `index` of an epoch, or of the sequence of all epochs from `start` on if `epoch` is None.

        Returns:
            Dict of the arrays of the rows, stacked.
        """
        places = self.share(np.arange(index * batch_size, (index + 1) * batch_size), batch_size)
        if epoch is None:
            epochs, places = np.divmod(self.start + places, len(self))
        else:
            places = places[places < len(self)]
            epochs = np.full(len(places), epoch)
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        rows = [self.row_or_next(*self.order(epoch)[place].tolist(), epoch) for epoch, place in pairs]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def share(self, places, batch_size):
        """Returns those of the places in a sequence of batches that this process prepares."""
        if self.shard is None:
            return places
        index, count = self.shard
        return places[places % batch_size // (batch_size // count) == index]

    def numbered_batch(self, number, batch_size, per_epoch):
        """Returns a batch of the endless sequence of epochs of `per_epoch` batches, or of one sequence for None."""
        epoch, index = (None, number) if per_epoch is None else divmod(number, per_epoch)
        return self.batch(index, batch_size, epoch)

    def _index(self, position):
        """Returns the position in the data set that `batches` was called with."""
        return self.dataset.positions[position] if isinstance(self.dataset, Cached) else position

    def _other(self, position, epoch, rng):
        """Returns a random sample of the epoch from another position, or None where it cannot be read."""
        positions = self.order(epoch)[:, 0]
        positions = positions[positions != position]
        return read_or_skip(self.dataset, int(rng.choice(positions))) if positions.size else None

    def row_or_next(self, position, repeat, epoch):
        """Returns the row of a sample, or of the next one that can be read.

        Args:
            position: Position of the sample in the data set.
            repeat: How often the sample was in this epoch before; another one draws another augmentation.
            epoch: Number of the epoch.
        """
        row = None
        try:
            while row is None:  # terminates: `row` raises when no sample is readable
                row = self.row(position, repeat, epoch)
                position = (position + 1) % len(self.dataset)
        except DataError as error:
            self._failure = error
            raise
        return row

    @contextlib.contextmanager
    def raising(self):
        """A block in which a DataError of a row is raised as it is: TensorFlow makes an error of its own of it."""
        try:
            yield
        except Exception as error:
            if self._failure is None or error is self._failure:
                raise
            raise self._failure from error
