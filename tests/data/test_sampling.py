import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import data
from keras_maskrcnn.data.sampling import Order


class Labels(data.Dataset):
    """Labels without images, in memory; an image is an error."""

    def __init__(self, labels, count):
        self.labels, self.class_names = labels, [str(number) for number in range(1, count + 1)]

    def __len__(self):
        return len(self.labels)

    def labels_at(self, position):
        if self.labels[position] is None:
            raise data.DataError(f"{position}.jpg", "is truncated")
        return np.array(self.labels[position], np.int32)

    def read(self, position):
        raise AssertionError("an image is decoded")


def test_factors_worked_by_hand():
    """Of 8 images all but one show class 1, two class 2, one class 3: r = √(0.5 / f) = 1, √2, 2."""
    dataset = Labels([[1], [1], [1], [1], [1, 2], [1, 2, 2], [1, 3, 3, 3], []], 3)
    factors = data.RepeatFactor(0.5)(dataset)
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 2**0.5, 2**0.5, 2, 1])
    assert (data.RepeatFactor(0.1)(dataset) == 1).all()


def test_a_class_that_does_not_occur_and_an_image_that_cannot_be_read():
    dataset = Labels([[1], None, [2]], 5)
    np.testing.assert_allclose(data.RepeatFactor(1.0)(dataset), [3**0.5, 1, 3**0.5])
    assert dataset.skipped == {"1.jpg": "is truncated"}


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ValueError, match="threshold must be a share"):
        data.RepeatFactor(threshold)


FACTORS = st.lists(st.floats(0, 5), min_size=1, max_size=30).filter(any)


@given(FACTORS, st.integers(0, 99), st.integers(0, 9), st.booleans())
@settings(max_examples=150, deadline=None)
def test_each_factor_is_rounded_up_or_down(factors, seed, epoch, shuffle):
    order = Order(len(factors), shuffle, seed, factors)
    places = order(epoch)
    assert len(places) == len(order) == np.ceil(sum(factors))
    times = np.bincount(places[:, 0], minlength=len(factors))
    raised = np.array(factors) * len(order) / sum(factors)
    assert (np.abs(times - raised) < 1 + 1e-9).all()
    assert len(np.unique(places, axis=0)) == len(places)  # repeats are counted from 0
    assert (places[:, 1] < times[places[:, 0]]).all()
    assert shuffle or (np.diff(places[:, 0]) >= 0).all()


def test_over_many_epochs_a_sample_occurs_as_often_as_its_factor():
    factors = [1.4, 1.3, 2.5, 1, 1.2, 3.6]  # 11 in all
    order = Order(6, True, 0, factors)
    times = np.array([np.bincount(order(epoch)[:, 0], minlength=6) for epoch in range(2000)])
    np.testing.assert_allclose(times.mean(0), factors, atol=0.04)  # three standard errors are 0.034
    assert set(times[:, 1]) == {1, 2} and set(times[:, 2]) == {2, 3} and set(times[:, 3]) == {1}
    together = np.mean((times[:, 1] == 2) & (times[:, 2] == 3))
    assert 0 < together < 0.3  # neighbours are not rounded in step


def test_epochs_depend_on_the_seed_and_the_epoch_only():
    orders = [Order(20, True, seed, np.linspace(1, 3, 20)) for seed in (4, 4, 5)]
    assert np.array_equal(orders[0](1), orders[1](1))
    orders[0](7)
    assert np.array_equal(orders[0](1), orders[1](1))
    assert not np.array_equal(orders[0](1), orders[0](2)) and not np.array_equal(orders[0](1), orders[2](1))


@pytest.mark.parametrize("factors", [[1, 2], [1, 2, np.nan], [0, 0, 0], [1, -1, 1]])
def test_factors_that_cannot_be_used(factors):
    with pytest.raises(ValueError, match="sampling must give 3 finite factors"):
        Order(3, True, 0, factors)


SMALL = {"image_size": (32, 48), "batch_size": 2, "max_instances": 4, "mask_size": 14}


def twice_the_last(dataset):
    return [1] * (len(dataset) - 1) + [2.0]


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize("cache", [False, True])
def test_batches_repeat_a_sample_with_another_augmentation(sample, in_memory, backend, cache):
    files = in_memory([sample([[4, 4, 20, 20]], seed=i) for i in range(3)])
    options = {**SMALL, "sampling": twice_the_last, "backend": backend, "cache": cache, "augment": "standard"}
    batches = data.batches(files, **options)
    rows = [pair for x, _ in batches for pair in zip(x["image_index"], np.asarray(x["images"]), strict=True)]
    assert sorted(int(index) for index, _ in rows) == [0, 1, 2, 2]  # shuffled: `sampling` says so
    one, other = (image for index, image in rows if index == 2)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_a_run_that_continues_gets_the_samples_that_it_would_have_got(backend):
    options = {**SMALL, "sampling": data.RepeatFactor(0.5), "backend": backend, "repeat": True, "seed": 3}

    def stream(start, count):
        batches = data.batches(data.Shapes(7, objects=(1, 1)), **options)
        batches.rows.start = start
        taken = (x["image_index"] for x, _ in batches)
        return np.concatenate([np.asarray(next(taken)) for _ in range(count)]).tolist()

    whole = stream(0, 14)
    assert stream(12, 8) == whole[12:]


def test_readers_give_labels_without_decoding(coco_folder):
    annotations = [{"image_id": i, "bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 1, 5, 5]]} for i in range(3)]
    annotations[0]["category_id"] = 7
    path, folder = coco_folder(annotations, images=("a.png", "b.png", "c.png", "d.png"))
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).unlink()
    factors = data.RepeatFactor(1.0)(data.Coco(path, folder))
    np.testing.assert_allclose(factors, [2, 2**0.5, 2**0.5, 1])
