"""The input pipeline: shuffle, read, augment, resize, batch, prefetch; seeded, and the same on every backend."""

import contextlib

import numpy as np

from keras_maskrcnn.data import augment as augmentation
from keras_maskrcnn.data.cache import Cached, read_or_skip
from keras_maskrcnn.data.exit_gate import ExitGate
from keras_maskrcnn.data.prepare import Prepare, split
from keras_maskrcnn.data.sample import DataError


def batches(
    dataset,
    image_size,
    batch_size,
    max_instances=100,
    mask_size=112,
    augment=None,
    shuffle=None,
    seed=0,
    repeat=False,
    drop_remainder=None,
    cache=False,
    workers=2,
    backend="auto",
    antialias=None,
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
        max_instances: N, rows of the targets; of more instances the largest are kept.
        mask_size: M, side of the masks, each cropped to its box; or "canvas" for masks uint8 [B, N, H, W] of 0 and 255,
            which take about fifty times the memory, see `heads.mask.MaskStage`.
        augment: "flip", "standard", "strong", a callable (sample, rng) -> sample, or None.
        shuffle: New order in each epoch; None means True with augmentation, else False.
        seed: Non-negative int.
        repeat: Repeat the epochs without end; `fit` then needs `steps_per_epoch`. `rows.start` of the result, set
            before the first batch is taken, is the number of samples to start after, for a run that continues.
        drop_remainder: Leave out a last batch that is not full; None means True if `shuffle` and a full batch exists.
        cache: Keep decoded samples in memory; they are read by this call.
        workers: Number of threads that prepare samples.
        backend: "tf" (a tf.data.Dataset), "numpy" (a keras.utils.PyDataset), or "auto": "tf" where Keras runs on
            TensorFlow.
        antialias: Whether images are smoothed where they shrink. None: as the `resize` option of the model that `fit`
            or `evaluate` is called on says; True until then.

    Returns:
        An iterable of (x, y):
        x: "images" uint8 [B, H, W, 3], or as the data set's `image_type` says; "sizes" float32 [B, 2] (height and width
        of the resized image in the canvas), "image_index" int32 [B] (position in the data set);
        y: "boxes" float32 [B, N, 4] in canvas pixels, "labels" int32 [B, N] (0 is padding), "masks" uint8
        [B, N, M, M] coverage of the instance inside its own box, "crowd" and "valid" bool [B, N], and each of the data
        set's `fields`, [B, N, *shape] in canvas pixels.

    Raises:
        DataError: The data set is empty, no sample of it can be read, or it does not fill a batch and `drop_remainder`
            is True.
        ValueError: `augment` or `backend` has a value that is not listed above, or `augment` has changes of
            colours that the images do not have.
    """
    augment = augmentation.get(augment, dataset.image_type)
    shuffle = augment is not None if shuffle is None else shuffle
    prepare = Prepare(image_size, max_instances, mask_size, augment, dataset.fields, antialias, dataset.image_type)
    rows = Rows(Cached(dataset) if cache else dataset, prepare, shuffle, seed)
    if drop_remainder is None:
        drop_remainder = shuffle and len(rows) >= batch_size
    if drop_remainder and len(rows) < batch_size:
        raise DataError(_name(dataset), f"{len(rows)} samples do not fill a batch of {batch_size}")
    if _chosen(backend) == "tf":
        result = _tf_dataset(rows, batch_size, repeat, drop_remainder, workers)
    else:
        from keras_maskrcnn.data.py_dataset import NumpyBatches

        result = NumpyBatches(rows, batch_size, repeat, drop_remainder, workers=workers)
    result.rows = rows
    result.class_names = dataset.class_names  # as keras.utils.image_dataset_from_directory does
    return result


class Rows:
    """The order of an epoch and the row at each position, for both backends.

    Args:
        dataset: A Dataset.
        prepare: A Prepare.
        shuffle: Whether each epoch has a new order.
        seed: Non-negative int.

    Attributes:
        start: Position at which the sequence of all epochs starts, or goes on with the next epoch.
    """

    def __init__(self, dataset, prepare, shuffle, seed):
        self.start = 0
        self.dataset, self.prepare, self.shuffle, self.seed = dataset, prepare, shuffle, seed
        self._failed_in_a_row, self._failure = 0, None
        # One readable sample is enough for an epoch that is not empty.
        if not any(read_or_skip(dataset, position) for position in range(len(dataset))):
            reasons = [f"no sample can be read, among them {source}: {why}" for source, why in dataset.skipped.items()]
            raise DataError(_name(dataset), reasons[0] if reasons else "has no samples")

    def __len__(self):
        return len(self.dataset)

    def order(self, epoch):
        """Returns the positions of an epoch: int64 [n]."""
        if not self.shuffle:
            return np.arange(len(self))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))

    def row(self, position, epoch):
        """Returns the row at a position of an epoch, or None where the sample cannot be read."""
        sample = read_or_skip(self.dataset, position)
        if sample is None:
            self._failed_in_a_row += 1
            if self._failed_in_a_row > 2 * len(self):  # a lost disk would cause an endless loop of repeats
                raise DataError(_name(self.dataset), "no sample can be read any more")
            return None
        self._failed_in_a_row = 0
        index = self.dataset.positions[position] if isinstance(self.dataset, Cached) else position
        return self.prepare(sample, np.random.default_rng([self.seed, epoch, index]), index)

    def row_or_next(self, position, epoch):
        """Returns the row at a position, or that of the next readable sample of the data set."""
        row = None
        try:
            while row is None:  # terminates: `row` raises when no sample is readable
                row = self.row(position, epoch)
                position = (position + 1) % len(self)
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


def _name(dataset):
    return type(dataset.dataset if isinstance(dataset, Cached) else dataset).__name__


def _chosen(backend):
    if backend not in ("auto", "tf", "numpy"):
        raise ValueError(f"backend must be auto, tf or numpy, not {backend!r}")
    if backend != "auto":
        return backend
    from keras_maskrcnn.backend import is_tensorflow

    return "tf" if is_tensorflow() else "numpy"


def _tf_dataset(rows, batch_size, repeat, drop_remainder, workers):
    import tensorflow as tf

    gate = ExitGate()
    signature = rows.prepare.signature()
    empty = [np.zeros(shape, dtype) for shape, dtype in signature.values()]

    def next_epoch():
        epoch, first = divmod(rows.start, len(rows))
        rows.start = (epoch + 1) * len(rows)
        order = rows.order(epoch)[first:]
        return np.stack([order, np.full_like(order, epoch)], 1)

    def read(place):
        with gate as is_open:
            return list(rows.row_or_next(*place.tolist()).values()) if is_open else empty

    def load(place):
        arrays = tf.numpy_function(read, [place], [tf.as_dtype(dtype) for _, dtype in signature.values()])
        for array, (shape, _) in zip(arrays, signature.values(), strict=True):
            array.set_shape(shape)
        return split(dict(zip(signature, arrays, strict=True)))

    def one_epoch(_):
        places = tf.numpy_function(next_epoch, [], tf.int64)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(places, (None, 2)))

    result = tf.data.Dataset.range(1).flat_map(one_epoch)
    result = result.repeat() if repeat else result
    result = result.map(load, num_parallel_calls=workers, deterministic=True)
    result = result.batch(batch_size, drop_remainder=drop_remainder)
    # Without a known length Keras warns at the end of the first epoch that the data ran out.
    full, rest = divmod(len(rows), batch_size)
    length = tf.data.INFINITE_CARDINALITY if repeat else full + (bool(rest) and not drop_remainder)
    result = result.apply(tf.data.experimental.assert_cardinality(length))
    return result.prefetch(2).with_options(_without_autotuning(tf))


def _without_autotuning(tf):
    """Returns options without autotuning: nothing is left to tune, and the tuner's thread, which sleeps for up to a
    minute, would delay the end of every epoch.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
