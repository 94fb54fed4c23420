import itertools
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_maskrcnn import data

SHAPES = data.Shapes(10, image_size=(40, 60), seed=1)
SMALL = {"image_size": (32, 48), "batch_size": 4, "max_instances": 6, "mask_size": 14}
BACKENDS = pytest.mark.parametrize("backend", ["tf", "numpy"])


def arrays(dataset, count=None):
    """The first batches of a pipeline (all of them for None) as dicts of arrays, x and y merged."""
    return [{key: np.asarray(value) for key, value in {**x, **y}.items()} for x, y in itertools.islice(dataset, count)]


def equal(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def image_indices(batches):
    return np.concatenate([batch["image_index"] for batch in batches]).tolist()


@BACKENDS
def test_shapes_and_dtypes_of_the_contract(backend):
    x, y = next(iter(data.batches(SHAPES, **SMALL, backend=backend)))
    found = {key: (np.asarray(value).dtype.name, np.asarray(value).shape) for key, value in {**x, **y}.items()}
    assert set(x) == {"images", "sizes", "image_index"}
    assert found == {
        "images": ("uint8", (4, 32, 48, 3)),
        "sizes": ("float32", (4, 2)),
        "image_index": ("int32", (4,)),
        "boxes": ("float32", (4, 6, 4)),
        "labels": ("int32", (4, 6)),
        "masks": ("uint8", (4, 6, 14, 14)),
        "crowd": ("bool", (4, 6)),
        "valid": ("bool", (4, 6)),
    }


def test_static_shapes_are_known_to_tensorflow():
    x, y = data.batches(SHAPES, **SMALL, drop_remainder=True, backend="tf").element_spec
    assert x["images"].shape.as_list() == [4, 32, 48, 3] and y["masks"].shape.as_list() == [4, 6, 14, 14]


@BACKENDS
def test_masks_of_the_whole_canvas(sample, in_memory, backend):
    one = sample([[10, 5, 20, 15]], size=(16, 24))
    (batch,) = arrays(data.batches(in_memory([one]), **{**SMALL, "mask_size": "canvas"}, backend=backend))
    assert batch["masks"].shape == (1, 6, 32, 48) and batch["masks"].dtype == np.uint8
    expected = np.zeros((32, 48), "uint8")
    expected[10:30, 20:40] = 255  # the image is enlarged twice
    np.testing.assert_array_equal(batch["masks"][0, 0], expected)
    assert not batch["masks"][0, 1:].any()


@BACKENDS
def test_worked_by_hand(sample, in_memory, backend):
    """20 x 40 fits into 32 x 48 at factor 1.2, so that rows from 24 on are padding."""
    one = sample([[10, 5, 20, 15]], size=(20, 40), labels=[3], crowd=np.array([True]))
    (batch,) = arrays(data.batches(in_memory([one]), **SMALL, backend=backend))
    assert batch["sizes"].tolist() == [[24, 48]]
    np.testing.assert_allclose(batch["boxes"][0, 0], [12, 6, 24, 18])
    assert batch["labels"][0].tolist() == [3, 0, 0, 0, 0, 0]
    assert batch["valid"][0].tolist() == batch["crowd"][0].tolist() == [True] + [False] * 5
    assert (batch["masks"][0, 0] == 255).all() and not batch["masks"][0, 1:].any()
    assert batch["images"][0, :24].min() > 0 and not batch["images"][0, 24:].any()


def test_boxes_follow_the_rounded_size_of_the_image(sample, in_memory):
    """10 x 3 pixels are resized to 32 x 10, by 3.2 vertically and 3.33 horizontally."""
    (batch,) = arrays(data.batches(in_memory([sample([[0, 0, 3, 10]], size=(10, 3))]), **SMALL))
    assert batch["sizes"].tolist() == [[32, 10]]
    np.testing.assert_allclose(batch["boxes"][0, 0], [0, 0, 10, 32], rtol=1e-6)


@pytest.mark.parametrize("augment", [None, "flip", "standard", "strong", data.Augment(crop=(20, 20), scale=(0.5, 2))])
@pytest.mark.parametrize("cache", [False, True])
def test_both_backends_give_the_same_batches(augment, cache):
    options = {**SMALL, "augment": augment, "shuffle": True, "seed": 7, "cache": cache}
    tf, numpy = (data.batches(SHAPES, **options, backend=backend) for backend in ("tf", "numpy"))
    first, second = arrays(tf), arrays(tf)
    assert equal(first, arrays(numpy))
    numpy.on_epoch_end()
    assert equal(second, arrays(numpy))
    assert not equal(first, second)


@BACKENDS
def test_the_seed_determines_the_batches(backend):
    def stream(seed):
        return arrays(data.batches(SHAPES, **SMALL, augment="standard", repeat=True, seed=seed, backend=backend), 7)

    assert equal(stream(1), stream(1))
    assert not equal(stream(1), stream(2))


@BACKENDS
def test_repeated_epochs_differ_in_order_and_augmentation(backend):
    one = data.Subset(SHAPES, [0])
    options = {**SMALL, "batch_size": 1, "repeat": True, "backend": backend}
    images = [batch["images"] for batch in arrays(data.batches(one, **options, augment="standard"), 3)]
    assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[1], images[2])
    order = image_indices(arrays(data.batches(SHAPES, **options, shuffle=True), 20))
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


@BACKENDS
def test_batches_span_repeated_epochs(backend):
    found = image_indices(arrays(data.batches(SHAPES, **SMALL, repeat=True, backend=backend), 5))
    assert found == [*range(10), *range(10)]


@BACKENDS
def test_the_last_batch(backend):
    whole = data.batches(SHAPES, **SMALL, backend=backend)
    assert [len(batch["labels"]) for batch in arrays(whole)] == [4, 4, 2]
    shuffled = data.batches(SHAPES, **SMALL, shuffle=True, backend=backend)
    assert [len(batch["labels"]) for batch in arrays(shuffled)] == [4, 4]
    kept = data.batches(SHAPES, **SMALL, shuffle=True, drop_remainder=False, backend=backend)
    assert sorted(image_indices(arrays(kept))) == list(range(10))


def test_shuffles_if_there_is_augmentation():
    assert image_indices(arrays(data.batches(SHAPES, **SMALL))) == list(range(10))
    assert image_indices(arrays(data.batches(SHAPES, **SMALL, augment="flip"))) != list(range(8))


def test_length_is_known(sample, in_memory):
    assert int(data.batches(SHAPES, **SMALL, backend="tf").cardinality()) == 3
    assert int(data.batches(SHAPES, **SMALL, shuffle=True, backend="tf").cardinality()) == 2
    assert int(data.batches(SHAPES, **SMALL, repeat=True, backend="tf").cardinality()) == -1
    files = in_memory([sample([], seed=i) for i in range(5)])
    assert int(data.batches(files, **SMALL, backend="tf").cardinality()) == 2
    assert int(data.batches(files, **SMALL, cache=True, backend="tf").cardinality()) == 2
    assert len(arrays(data.batches(files, **SMALL, cache=True, backend="tf"))) == 2
    assert data.batches(files, **SMALL, backend="numpy").num_batches == 2


def test_a_few_samples_still_make_a_batch(sample, in_memory):
    three = in_memory([sample([], seed=i) for i in range(3)])
    assert len(image_indices(arrays(data.batches(three, **SMALL, augment="flip")))) == 3
    with pytest.raises(data.DataError, match="InMemory: 3 samples do not fill a batch of 4"):
        data.batches(three, **SMALL, drop_remainder=True)


@pytest.fixture
def with_a_truncated_file(coco_folder, truncated_jpeg):
    """Six images, of which number 2 is truncated."""
    path, folder = coco_folder([], images=[f"{i}.jpg" for i in range(6)])
    (folder / "2.jpg").write_bytes(truncated_jpeg)
    return data.Coco(path, folder)


@BACKENDS
@pytest.mark.parametrize("cache", [False, True])
def test_a_truncated_jpeg_is_replaced_and_named_once(with_a_truncated_file, caplog, cache, backend):
    """In memory, it is left out."""
    with caplog.at_level(logging.WARNING):
        batches = data.batches(with_a_truncated_file, **SMALL, cache=cache, backend=backend)
        expected = [0, 1, 3, 4, 5] if cache else [0, 1, 3, 3, 4, 5]
        assert image_indices(arrays(batches)) == image_indices(arrays(batches)) == expected
    assert caplog.text.count("2.jpg") == 1 and "truncated" in caplog.text
    ((source, reason),) = with_a_truncated_file.skipped.items()
    assert source.endswith("2.jpg") and "truncated" in reason


@BACKENDS
@pytest.mark.parametrize("cache", [False, True])
def test_a_data_set_without_a_readable_sample_raises(in_memory, backend, cache):
    broken = in_memory([data.DataError(f"{i}.jpg", "is truncated") for i in range(3)])
    with pytest.raises(data.DataError, match=r"InMemory: no sample can be read, among them 0\.jpg: is truncated"):
        data.batches(broken, **SMALL, repeat=True, cache=cache, backend=backend)
    with pytest.raises(data.DataError, match="InMemory: has no samples"):
        data.batches(in_memory([]), **SMALL, backend=backend, cache=cache)


def test_a_removed_disk_stops_an_endless_stream(sample, in_memory):
    files = in_memory([sample([], seed=i) for i in range(3)])
    stream = iter(data.batches(files, **{**SMALL, "batch_size": 1}, repeat=True, backend="tf"))
    next(stream)
    files.samples = [data.DataError(f"{i}.jpg", "is gone") for i in range(3)]
    with pytest.raises(Exception, match="InMemory: no sample can be read any more"):
        list(itertools.islice(stream, 50))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"boxes": np.array([[5, 5, 5, 9]])}, "has no width"),
        ({"boxes": np.array([[90, 5, 99, 9]])}, "lies outside the image"),
        ({"labels": np.array([4])}, r"label 4 of instance 0 is not in 1..3"),
        ({"masks": np.ones((1, 9, 9), bool)}, "masks are bool of shape"),
    ],
)
def test_broken_samples_are_skipped(sample, in_memory, change, reason):
    mixed = in_memory([sample([]), {**sample([[5, 5, 9, 9]]), **change, "source": "bad"}])
    assert image_indices(arrays(data.batches(mixed, **SMALL, backend="tf"))) == [0, 0]
    assert reason in mixed.skipped["bad"]


def test_an_error_of_the_program_is_not_skipped(sample, in_memory):
    def wrong(sample, rng):
        raise ZeroDivisionError("a bug")

    with pytest.raises(Exception, match="a bug"):
        arrays(data.batches(in_memory([sample([])]), **SMALL, augment=wrong, backend="tf"))


def hundred(sample, seed):
    """Number 98 is the largest object, number 97 the next; number 99 is a crowd region as large as 98."""
    boxes = [
        [3 * (i % 10), 3 * (i // 10), 3 * (i % 10) + 1 + (i > 97), 3 * (i // 10) + 1 + (i > 96)] for i in range(100)
    ]
    return sample(boxes, seed=seed, crowd=np.arange(100) == 99)


@BACKENDS
@pytest.mark.parametrize("cache", [False, True])
def test_of_a_hundred_objects_crowd_regions_and_the_largest_are_kept(sample, in_memory, caplog, backend, cache):
    crowded = in_memory([sample([]), *(hundred(sample, seed) for seed in range(3))])
    options = {**SMALL, "backend": backend, "cache": cache}
    for count, kept in ((2, [98, 99]), (3, [97, 98, 99])):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            batches = data.batches(crowded, **{**options, "max_instances": count})
            (batch,) = arrays(batches)
        assert caplog.text.count("max_instances") == 1
        where = "InMemory of 4 images: 3 images with up to 100 instances" if cache else ": 100 instances"
        assert f"{where}, more than max_instances={count}: kept are crowd regions, then the largest" in caplog.text
        assert batches.rows.prepare.overfull == {1: 100, 2: 100, 3: 100}
        np.testing.assert_allclose(batch["boxes"][1][:count], crowded[1]["boxes"][kept])
        assert batch["valid"][1:].all() and batch["crowd"].sum() == 3
    caplog.clear()
    (batch,) = arrays(data.batches(crowded, **{**options, "max_instances": 100}))
    assert batch["valid"][1:].all() and batch["crowd"].sum() == 3 and not caplog.text


def test_annotations_tell_before_the_first_step_how_many_images_have_too_many_objects(coco_folder, caplog):
    annotation = {"bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 1, 5, 5]]}
    counts = {0: 3, 1: 1, 2: 5}
    annotations = [{**annotation, "image_id": i} for i, count in counts.items() for _ in range(count)]
    path, folder = coco_folder(annotations, images=("a.png", "b.png", "c.png"))
    with caplog.at_level(logging.WARNING):
        batches = data.batches(data.Coco(path, folder), **{**SMALL, "max_instances": 2})
    assert batches.rows.prepare.overfull == {0: 3, 2: 5}
    assert "Coco of 3 images: 2 images with up to 5 instances, more than max_instances=2" in caplog.text
    crops = data.batches(data.Coco(path, folder), **{**SMALL, "max_instances": 2}, augment=data.Augment(crop=(4, 4)))
    assert not crops.rows.prepare.overfull


@BACKENDS
def test_empty_images_and_objects_of_one_pixel(sample, in_memory, backend):
    samples = in_memory([sample([]), sample([[7, 9, 8, 10]])])
    for augment in (None, "strong"):
        options = {**SMALL, "augment": augment, "drop_remainder": False, "shuffle": False}
        (batch,) = arrays(data.batches(samples, **options, backend=backend))
        assert not batch["valid"][0].any() and np.isfinite(batch["boxes"]).all()
        if augment is None:
            np.testing.assert_allclose(batch["boxes"][1, 0], [7, 9, 8, 10])
            assert (batch["masks"][1, 0] == 255).all()


def test_masks_are_cut_at_full_resolution(sample, in_memory):
    """Two stripes of 2 px are kept in M = 14 cells although the canvas reduces them to a quarter of a pixel."""
    big = sample([[0, 0, 280, 256]], size=(256, 384))
    big["masks"][0] = (np.arange(384) // 20 % 2 == 0) & big["masks"][0]
    (batch,) = arrays(data.batches(in_memory([big]), **SMALL, backend="tf"))
    row = batch["masks"][0, 0, 7]
    assert row[::2].min() > 150 and row[1::2].max() < 105


def test_position_in_a_subset(sample, in_memory):
    whole = in_memory([sample([], seed=i) for i in range(9)])
    assert image_indices(arrays(data.batches(data.Subset(whole, [8, 3]), **SMALL))) == [0, 1]


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="backend must be auto, tf, numpy or grain"):
        data.batches(SHAPES, **SMALL, backend="torch")
    with pytest.raises(ValueError, match="augment must be"):
        data.batches(SHAPES, **SMALL, augment="unknown")


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # importing it raises ImportError
from keras_maskrcnn import data
batches = data.batches(data.Shapes(6), (64, 64), 2, augment="flip")
assert type(batches).__name__ == "NumpyBatches", batches
import keras
inputs = keras.Input((64, 64, 3), name="images")
model = keras.Model({"images": inputs}, {"labels": keras.layers.Dense(100)(keras.layers.Flatten()(inputs))})
model.compile(loss={"labels": "mse"})
x, y = batches[0]
print("images a batch:", len(x["images"]), sorted(y))
"""


def test_without_tensorflow():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "images a batch: 2 ['boxes', 'crowd', 'labels', 'masks', 'valid']" in run.stdout


@BACKENDS
@pytest.mark.filterwarnings("error:Your input ran out of data")
def test_fit_takes_the_batches(with_a_truncated_file, backend):
    """A model that predicts the number of objects sees every batch of every epoch."""
    import keras

    class Count(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(keras.ops.mean(keras.ops.cast(x["images"], "float32"), (1, 2)) / 255)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            count = keras.ops.sum(keras.ops.cast(y["valid"], "float32"), 1, keepdims=True)
            return keras.ops.mean((y_pred - count) ** 2)

    model = Count()
    model.compile("sgd", jit_compile=False)
    training = data.batches(with_a_truncated_file, **{**SMALL, "batch_size": 3}, augment="flip", backend=backend)
    validation = data.batches(SHAPES, **SMALL, backend=backend)
    history = model.fit(training, validation_data=validation, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2 and np.isfinite(history.history["val_loss"]).all()
    assert int(model.optimizer.iterations) == 4


@BACKENDS
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("augment", [None, data.Augment(crop=(32, 48), scale=(0.5, 0.5))])
def test_images_are_smoothed_where_they_shrink_only_if_asked(sample, in_memory, backend, antialias, augment):
    one = sample([[10, 5, 40, 35]], size=(64, 96))
    one["image"] = np.zeros((64, 96, 3), "uint8")
    one["image"][::4] = 255  # at half size, each second output row lies between a white and a black row
    one["image"][1::4] = 255
    options = {**SMALL, "augment": augment, "backend": backend, "antialias": antialias}
    (batch,) = arrays(data.batches(in_memory([one]), **options))
    rows = np.unique(batch["images"][0, 1:-1])
    if antialias:
        assert rows.min() > 0 and rows.max() < 255
    else:
        np.testing.assert_array_equal(rows, [0, 255])


@pytest.mark.parametrize("antialias", [True, False])
def test_training_sees_the_pixels_of_inference(in_memory, sample, antialias):
    from keras_maskrcnn.inference.placement import Placement, Resize

    one = sample([[10, 5, 40, 35]], size=(70, 90))
    one["image"] = np.random.default_rng(0).integers(0, 256, (70, 90, 3), "uint8")
    (batch,) = arrays(data.batches(in_memory([one]), **SMALL, antialias=antialias))
    placed = Placement((32, 48), Resize(antialias=antialias), 8).batch([one["image"]], 1)
    np.testing.assert_array_equal(batch["sizes"][0], placed["sizes"][0])
    height, width = placed["sizes"][0].astype(int)
    inner = np.s_[1 : height - 1, 1 : width - 1]  # at the border Pillow's smoothing filter is cut off differently
    np.testing.assert_allclose(batch["images"][0][inner], placed["images"][0][inner], atol=1.0)


def test_usual_mistakes_are_named():
    with pytest.raises(ValueError, match=r"photos is a path, not a data set: open it by data\.open"):
        data.batches("photos", (32, 48), 4)
    for size in (512, (32, 48, 3)):
        with pytest.raises(ValueError, match=r"image_size must be \(height, width\), not "):
            data.batches(SHAPES, size, 4)
