"""Training that continues: the position in the data."""

import itertools

import numpy as np
import pytest

from keras_maskrcnn import data


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize("start", [3, 10, 16, 25])
def test_batches_start_at_any_position(backend, start):
    def images(start):
        options = {"augment": "flip", "repeat": True, "seed": 3, "mask_size": 14, "backend": backend}
        batches = data.batches(data.Shapes(10, image_size=(32, 32)), (32, 32), 1, **options)
        batches.rows.start = start
        return [(int(x["image_index"][0]), np.asarray(x["images"])) for x, _ in itertools.islice(batches, 35 - start)]

    for (index, image), (expected, other) in zip(images(start), images(0)[start:], strict=True):
        assert index == expected
        np.testing.assert_array_equal(image, other)


@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_an_unreadable_sample_moves_no_position(backend):
    class Broken(data.Shapes):
        always_readable = False

        def read(self, position):
            if position == 2:
                raise data.DataError("2.jpg", "is truncated")
            return super().read(position)

    def indices(start):
        batches = data.batches(Broken(5, image_size=(32, 32)), (32, 32), 1, repeat=True, backend=backend)
        batches.rows.start = start
        return [int(x["image_index"][0]) for x, _ in itertools.islice(batches, 12 - start)]

    assert indices(0) == [0, 1, 3, 3, 4, 0, 1, 3, 3, 4, 0, 1]
    assert indices(7) == indices(0)[7:]
