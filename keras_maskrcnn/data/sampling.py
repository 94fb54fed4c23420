"""Which samples an epoch consists of: each once, or images of rare classes more often."""

import dataclasses

import numpy as np

from keras_maskrcnn.data.cache import skip
from keras_maskrcnn.data.errors import DataError


@dataclasses.dataclass(frozen=True)
class RepeatFactor:
    """Repeats images of rare classes (Gupta, Dollár & Girshick 2019, LVIS, section 5.2, "repeat factor sampling").

    A class c in a share f(c) of the images has the factor r(c) = max(1, √(threshold / f(c))), and an image the maximum
    of its classes: the mean number of times that it is in an epoch. Images without objects have the factor 1. Labels
    come from `dataset.labels_at`, so no image is decoded if the reader has the labels in memory. Crowd regions count.

    Attributes:
        threshold: Share of the images below which a class is repeated, 0.001 for LVIS; 0.01 to 0.1 for small data sets.
    """

    threshold: float = 0.001

    def __post_init__(self):
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be a share of the images above 0 and at most 1, not {self.threshold}")

    def __call__(self, dataset):
        """Returns the factor of each sample of a data set: float64 [n], 1 or more."""
        present = [_classes(dataset, position) for position in range(len(dataset))]
        images = np.bincount(np.concatenate(present), minlength=dataset.num_classes + 1)
        factors = np.sqrt(np.maximum(1.0, self.threshold * len(dataset) / np.maximum(images, 1)))
        return np.array([factors[labels].max(initial=1.0) for labels in present])


def _classes(dataset, position):
    """Returns the different labels of a sample; none if it cannot be read."""
    try:
        return np.unique(dataset.labels_at(position))
    except DataError as error:
        skip(dataset, error)
        return np.zeros(0, np.int32)


class Order:
    """The samples of each epoch, which depend only on the seed and the epoch.

    With factors, the number of times that a sample is in an epoch is its factor, rounded up or down at random for each
    epoch. All epochs have the same length, so that `fit` knows it: one random number rounds all samples together
    (systematic sampling), with the probabilities that rounding each by itself would have.

    Args:
        count: Number of samples in the data set, n.
        shuffle: Whether each epoch has a new order; else samples are in the order of the data set.
        seed: Non-negative int.
        factors: float [n], mean number of times that each sample is in an epoch; None for once. They are raised by
            less than one sample per epoch in all, to a whole number of samples.

    Raises:
        ValueError: The factors are not n finite numbers of 0 or more.
    """

    def __init__(self, count, shuffle, seed, factors=None):
        self.count, self.shuffle, self.seed = count, shuffle, seed
        self.factors = None if factors is None else np.asarray(factors, np.float64)
        self._length = count if factors is None else self._whole()
        self._latest = None, None  # epoch and what it consists of

    def _whole(self):
        """Checks the factors and returns their sum, rounded up."""
        found = self.factors
        if found.shape != (self.count,) or not np.isfinite(found).all() or (found < 0).any() or not found.any():
            raise ValueError(f"sampling must give {self.count} finite factors of 0 or more, and one above 0")
        return int(np.ceil(found.sum()))

    def __len__(self):
        return self._length

    def __call__(self, epoch):
        """Returns an epoch: int32 [len, 2], position in the data set, and how often it was in this epoch before."""
        latest = self._latest  # read once, as threads share it
        if latest[0] != epoch:
            latest = self._latest = epoch, self._drawn(epoch).astype(np.int32)  # half the memory of a million images
        return latest[1]

    def _drawn(self, epoch):
        rng = np.random.default_rng([self.seed, epoch])
        if self.factors is None:
            positions = rng.permutation(self.count) if self.shuffle else np.arange(self.count)
            return np.stack([positions, np.zeros_like(positions)], 1)
        times = self._times(rng)
        positions = np.repeat(np.arange(self.count), times)
        repeats = np.arange(len(self)) - np.repeat(np.cumsum(times) - times, times)
        places = np.stack([positions, repeats], 1)
        return rng.permutation(places) if self.shuffle else places

    def _times(self, rng):
        """Returns how often each sample is in an epoch: int64 [n]."""
        drawn = rng.permutation(self.count)  # neighbours in the data set are rounded independently
        ends = np.cumsum(self.factors[drawn])
        ends = np.floor(ends * (len(self) / ends[-1]) + rng.random()).astype(np.int64)
        ends[-1] = len(self)
        times = np.zeros(self.count, np.int64)
        times[drawn] = np.diff(np.minimum(ends, len(self)), prepend=0)
        return times
