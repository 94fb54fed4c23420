"""The input pipeline: shuffle, read, augment, resize, batch, prefetch; seeded, and the same on every backend."""

from collections.abc import Callable

import numpy as np

from keras_maskrcnn.data import augment as augmentation
from keras_maskrcnn.data.cache import Cached
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.exit_gate import ExitGate
from keras_maskrcnn.data.prepare import Prepare, split
from keras_maskrcnn.data.rows import Rows
from keras_maskrcnn.data.sample import Dataset, refuse_path


def batches(
    dataset: Dataset,
    image_size: tuple[int, int],
    batch_size: int,
    max_instances: int = 100,
    mask_size: int | str | None = 112,
    augment: str | Callable | None = None,
    shuffle: bool | None = None,
    sampling: Callable | None = None,
    seed: int = 0,
    repeat: bool = False,
    drop_remainder: bool | None = None,
    cache: bool = False,
    workers: int = 2,
    backend: str = "auto",
    antialias: bool | None = None,
    shard: tuple[int, int] | None = None,
):
    """Returns batches for `model.fit`.

    A sample that cannot be read is logged once and noted in `dataset.skipped`. With `cache` it is left out, otherwise
    the next readable sample replaces it, so that the length of an epoch is known; with `strict.Strict` it stops the
    iteration. Order and augmentation differ between
    epochs (each iteration over a tf.data.Dataset is one) and depend only on the seed.

    Args:
        dataset: A `data.Dataset`.
        image_size: (H, W) of the canvas; images are resized to fit in it with their aspect kept, at the top left.
        batch_size: B.
        max_instances: N, rows of the targets. Of more instances the crowd regions and then the largest are kept, which
            is logged once; `rows.prepare.overfull` of the result has the samples, by position.
        mask_size: M, side of the masks, each cropped to its box; "canvas" for masks uint8 [B, N, H, W] of 0 and 255,
            which take about fifty times the memory, see `heads.mask.MaskStage`; or None for batches without masks, for
            a model with `mask_stage=None`.
        augment: "flip", "standard", "strong", "lsj", "copy_paste", a callable (sample, rng) -> sample, or None. A
            callable with a true attribute `mixes` gets a third argument, a function from `rng` to another sample of the
            data set, or to None where that cannot be read.
        shuffle: New order in each epoch; None means True with augmentation or sampling, else False.
        sampling: How often each sample is in an epoch: `data.RepeatFactor(threshold)`, another callable from a data set
            to the mean number of times of each sample, float [n], or None for once.
        seed: Non-negative int.
        repeat: Repeat the epochs without end; `fit` then needs `steps_per_epoch`. `rows.start` of the result, set
            before the first batch is taken, is the number of samples to start after, for a run that continues.
        drop_remainder: Leave out a last batch that is not full; None means True if `shuffle` and a full batch exists.
        cache: Keep decoded samples in memory; they are read by this call.
        workers: Number of threads, or processes with `backend="grain"`, that prepare samples.
        backend: "tf" (a tf.data.Dataset), "numpy" (a keras.utils.PyDataset), "grain" (another one, whose batches are
            prepared in processes, see docs/speed.md), or "auto": "tf" where Keras runs on TensorFlow, else "numpy". The
            batches are equal. Each process of "grain" has a copy of the data set, with `cache` of the samples too.
        antialias: Whether images are smoothed where they shrink. None: as the `resize` option of the model that `fit`
            or `evaluate` is called on says; True until then.
        shard: (index, count) of a process that trains together with others: it gets the rows
            [index · B / count, (index + 1) · B / count) of each batch, so that the processes together have the batches
            of one process, each sample once. Batches are full: without `repeat`, those that are left over at the end of
            an epoch are left out; with it they are in the first batch of the next epoch. None for whole batches.

    Returns:
        An iterable of (x, y):
        x: "images" uint8 [B, H, W, 3], or as the data set's `image_type` says; "sizes" float32 [B, 2] (height and width
        of the resized image in the canvas), "image_index" int32 [B] (position in the data set);
        y: "boxes" float32 [B, N, 4] in canvas pixels, "labels" int32 [B, N] (0 is padding), "masks" uint8
        [B, N, M, M] coverage of the instance inside its own box, "crowd" and "valid" bool [B, N], and each of the data
        set's `fields`, [B, N, *shape] in canvas pixels, or for a `LabelMap` uint8 [B, H, W].

    Raises:
        DataError: The data set is empty, no sample of it can be read, or it does not fill a batch and `drop_remainder`
            is True.
        ValueError: `dataset` is a path, `image_size` no pair, `augment` or `backend` a value that is not listed above,
            `augment` has changes of colours that the images do not have, grain is not installed, or a batch
            cannot be divided among the processes.

    Example:
        >>> from keras_maskrcnn import data
        >>> x, y = next(iter(data.batches(data.Shapes(4), (64, 64), batch_size=2, max_instances=5)))
        >>> tuple(x["images"].shape), tuple(y["boxes"].shape)
        ((2, 64, 64, 3), (2, 5, 4))
    """
    refuse_path(dataset)
    if np.shape(image_size) != (2,):
        raise ValueError(f"image_size must be (height, width), not {image_size!r}")
    augment = augmentation.get(augment, dataset.image_type)
    shuffle = bool(augment or sampling) if shuffle is None else shuffle
    prepare = Prepare(image_size, max_instances, mask_size, augment, dataset.fields, antialias, dataset.image_type)
    rows = Rows(Cached(dataset) if cache else dataset, prepare, shuffle, seed, sampling)
    if shard is not None:
        rows.divide(shard, batch_size)
        drop_remainder = not repeat
    drop_remainder = _drops_remainder(drop_remainder, rows, batch_size, shuffle)
    result = _kind(backend)(rows, batch_size, repeat, drop_remainder, workers)
    result.rows = rows
    result.class_names = dataset.class_names  # as keras.utils.image_dataset_from_directory does
    return result


def _drops_remainder(given, rows, batch_size, shuffle):
    full = len(rows) >= batch_size
    if given and not full:
        raise DataError(rows.name, f"{len(rows)} samples do not fill a batch of {batch_size}")
    return shuffle and full if given is None else given


def _kind(backend):
    """Returns the function or class that makes batches of rows."""
    if backend not in ("auto", "tf", "numpy", "grain"):
        raise ValueError(f"backend must be auto, tf, numpy or grain, not {backend!r}")
    if backend == "auto":
        from keras_maskrcnn.backend import is_tensorflow

        backend = "tf" if is_tensorflow() else "numpy"
    if backend == "tf":
        return _tf_dataset
    from keras_maskrcnn.data import py_dataset

    return py_dataset.ProcessBatches if backend == "grain" else py_dataset.NumpyBatches


def _tf_dataset(rows, batch_size, repeat, drop_remainder, workers):
    import tensorflow as tf

    gate = ExitGate()
    signature = rows.prepare.signature()
    empty = [np.zeros(shape, dtype) for shape, dtype in signature.values()]

    def next_epoch():
        epoch, first = divmod(rows.start, len(rows))
        rows.start = (epoch + 1) * len(rows)
        order = rows.order(epoch)
        places = np.arange(first, len(rows) if repeat else rows.num_batches(batch_size, drop_remainder) * batch_size)
        places = places[places < len(rows)]
        order = order[rows.share(places + (epoch * len(rows) if repeat else 0), batch_size) % len(rows)]
        return np.column_stack([order, np.full(len(order), epoch, order.dtype)])

    def read(place):
        with gate as is_open:
            return list(rows.row_or_next(*place.tolist()).values()) if is_open else empty

    def load(place):
        arrays = tf.numpy_function(read, [place], [tf.as_dtype(dtype) for _, dtype in signature.values()])
        for array, (shape, _) in zip(arrays, signature.values(), strict=True):
            array.set_shape(shape)
        return split(dict(zip(signature, arrays, strict=True)))

    def one_epoch(_):
        places = tf.numpy_function(next_epoch, [], tf.int32)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(places, (None, 3)))

    # Not `repeat`, which ends after an epoch without rows: a process may have none where an epoch is less than a batch.
    result = tf.data.Dataset.range(2**62 if repeat else 1).flat_map(one_epoch)
    result = result.map(load, num_parallel_calls=workers, deterministic=True)
    count = rows.shard[1] if rows.shard else 1
    result = result.batch(batch_size // count, drop_remainder=drop_remainder or count > 1)
    # Without a known length Keras warns at the end of the first epoch that the data ran out.
    length = tf.data.INFINITE_CARDINALITY if repeat else rows.num_batches(batch_size, drop_remainder)
    result = result.apply(tf.data.experimental.assert_cardinality(length))
    return result.prefetch(2).with_options(_without_autotuning(tf))


def _without_autotuning(tf):
    """Returns options without autotuning: nothing is left to tune, and the tuner's thread, which sleeps for up to a
    minute, would delay the end of every epoch.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
