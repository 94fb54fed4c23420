"""The same seed gives the same losses, bit for bit, whatever number of threads reads the images."""

import itertools

import keras
import numpy as np
import pytest
import recipe_runs

from keras_maskrcnn import MaskRCNN, data, training


def batches(backend, workers, **options):
    shapes = data.Shapes(20, image_size=(64, 64), seed=5, object_size=(12, 30))
    shape = {"max_instances": 6, "mask_size": 28}
    return data.batches(shapes, (64, 64), 2, augment="standard", workers=workers, backend=backend, **shape, **options)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_batches_do_not_depend_on_the_number_of_readers(backend, workers):
    expected = itertools.islice(batches("numpy", 1), 10)
    for one, two in zip(itertools.islice(batches(backend, workers), 10), expected, strict=True):
        for found, right in zip(one, two, strict=True):
            assert found.keys() == right.keys()
            for name, value in found.items():
                np.testing.assert_array_equal(value, right[name])


class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(dict(logs))


@pytest.mark.slow
@pytest.mark.parametrize("readers", [[("tf", 1), ("tf", 2), ("tf", 4)], [("numpy", 1), ("numpy", 4), ("grain", 2)]])
def test_losses_do_not_depend_on_the_number_of_readers(readers):
    """Those of a `PyDataset` are rounded otherwise: Keras compiles its steps for any batch size."""

    def losses(backend, workers):
        keras.utils.set_random_seed(0)
        model = MaskRCNN(
            3,
            {"name": "resnet10", "width": 8, "norm": "batch"},
            fpn_channels=16,
            proposals={"pre_nms": 50, "post_nms": 20},
            rpn_sampling={"size": 16},
            box_sampling={"size": 8},
            box_stage={"width": 16},
            mask_stage={"width": 8, "depth": 1},
            image_size=(64, 64),
            seed=7,
        )
        model.compile(training.SGD(1e-2, momentum=0.9))
        noted = Losses()
        data_set = batches(backend, workers, repeat=True)
        model.fit(data_set, steps_per_epoch=10, epochs=2, verbose=0, callbacks=[noted])
        if backend == "grain":
            data_set.close()
        return noted.values

    expected = losses(*readers[0])
    assert len(expected) == 20 and all(np.isfinite(step["loss"]) for step in expected)
    for backend, workers in readers[1:]:
        assert losses(backend, workers) == expected, (backend, workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_a_recipe_with_other_readers_ends_with_the_same_weights(undisturbed, run, workers):
    other = run("--workers", workers)
    other.complete()
    recipe_runs.check_equal(other.output, undisturbed.output)
