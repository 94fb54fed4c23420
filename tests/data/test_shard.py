"""Batches divided among processes: together they are those of one process, each sample once in an epoch."""

import numpy as np
import pytest

from keras_maskrcnn import data

SIZE = (32, 32)


def indices(count, batch_size, processes, steps, backend, **options):
    """Positions of the samples in each batch, for each process: list of [steps, B / processes]."""
    shapes = data.Shapes(count, image_size=SIZE, seed=5, object_size=(8, 16))
    results = []
    for index in range(processes):
        shard = (index, processes) if processes > 1 else None
        batches = data.batches(
            shapes, SIZE, batch_size, mask_size=8, shard=shard, backend=backend, workers=1, **options
        )
        batches.rows.start = options.get("start", 0)
        if backend == "tf":
            found = [x["image_index"].numpy() for x, _ in batches.take(steps)]
        else:
            total = batches.num_batches
            found = [batches[step][0]["image_index"] for step in range(steps if total is None else min(total, steps))]
        results.append(np.array(found))
    return results


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize(("count", "batch_size", "processes"), [(8, 4, 2), (10, 4, 2), (7, 6, 3), (3, 4, 4)])
def test_processes_together_have_the_batches_of_one(backend, count, batch_size, processes):
    steps = 3 * count // batch_size + 1  # over several epochs, which need not be whole batches
    options = {"steps": steps, "backend": backend, "shuffle": True, "repeat": True}
    [alone] = indices(count, batch_size, 1, **options)
    parts = indices(count, batch_size, processes, **options)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), alone)
    first = np.concatenate(parts, axis=1).ravel()[:count]
    assert sorted(first) == list(range(count)), "each sample once in the first epoch"


@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_without_repetition_the_remainder_is_left_out(backend):
    parts = indices(11, 4, 2, steps=9, backend=backend, shuffle=False)
    assert [part.shape for part in parts] == [(2, 2)] * 2, "as many batches in each process"
    np.testing.assert_array_equal(np.concatenate(parts, axis=1).ravel(), np.arange(8))


def test_a_batch_that_cannot_be_divided():
    with pytest.raises(ValueError, match="a batch of 4 cannot be divided among 3 processes"):
        indices(8, 4, 3, steps=1, backend="numpy")
