import numpy as np

from keras_maskrcnn import data


def test_the_cache_returns_the_samples_that_were_read():
    shapes = data.Shapes(5)
    cached = data.Cached(shapes)
    for before, after in zip(shapes, cached, strict=True):
        for key in before:
            np.testing.assert_array_equal(before[key], after[key])
    assert cached.class_names == shapes.class_names and cached.positions == [0, 1, 2, 3, 4]


def test_unreadable_samples_are_left_out(sample, in_memory):
    whole = in_memory([sample([], seed=1), data.DataError("b.jpg", "is truncated"), sample([[1, 1, 3, 3]], seed=2)])
    cached = data.Cached(whole)
    assert [found["image_id"] for found in cached] == [1, 2] and cached.positions == [0, 2]
    assert cached.skipped == whole.skipped == {"b.jpg": "is truncated"}
    assert cached[0]["masks"].shape == (0, 32, 48)


def test_every_sample_is_read_once(sample, in_memory):
    reads = []

    class Counting(in_memory):
        def read(self, position):
            reads.append(position)
            return super().read(position)

    cached = data.Cached(Counting([sample([], seed=i) for i in range(3)]))
    assert len(list(cached) + list(cached)) == 6 and reads == [0, 1, 2]
