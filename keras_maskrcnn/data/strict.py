"""Bad input: by default it is left out, counted and listed; a `Strict` data set stops at it instead."""

import sys

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.sample import Same, Wrapper

SHOWN = 20  # lines of `print_left_out`


class Strict(Same):
    """A data set whose bad input is an error, also where others leave it out: in batches, scores and conversions.

    Args:
        dataset: A Dataset.

    Raises:
        DataError: Its reader left out an annotation. Those found to be unusable later, and samples that cannot be read,
            raise a DataError when they are read.
    """

    strict = True

    def __init__(self, dataset):
        super().__init__(dataset)
        self._check()

    def _check(self):
        if self.dropped:
            number, reason = next(iter(self.dropped.items()))
            others = f" (and {len(self.dropped) - 1} more)" if len(self.dropped) > 1 else ""
            reader = self.dataset
            while isinstance(reader, Wrapper):
                reader = reader.dataset
            place = getattr(reader, "path", type(reader).__name__)
            raise DataError(f"{place}, annotation {number}", f"{reason}{others}")

    def read(self, position):
        """Returns a sample of the data set, of which no annotation is left out."""
        sample = self.dataset[position]
        self._check()
        return sample


def left_out(*datasets):
    """Returns what was left out of data sets so far: a list of lines "source: reason", images before annotations."""
    images, annotations = {}, {}
    for dataset in datasets:
        images |= dataset.skipped
        annotations |= dataset.dropped
    lines = [f"{source}: {reason}" for source, reason in images.items()]
    return lines + [f"annotation {number}: {reason}" for number, reason in annotations.items()]


def print_left_out(*datasets):
    """Prints on stderr how much was left out of data sets, and the first `SHOWN` reasons; nothing if all is used."""
    lines = left_out(*datasets)
    if lines:
        print(f"left out, of images and annotations: {len(lines)}", file=sys.stderr)
    for line in lines[:SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more", file=sys.stderr)
