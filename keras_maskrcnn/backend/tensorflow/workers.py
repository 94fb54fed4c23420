"""Processes of TensorFlow that train one model: the strategy and its data."""

import numpy as np
import tensorflow as tf

from keras_maskrcnn.backend import replicas


class Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """The strategy with which `keras.Model.fit` and `evaluate` run; it reads `TF_CONFIG`.

    Under the original strategy Keras averages the logs of a step, which are scalars, along axis 0, and fails
    (https://github.com/keras-team/keras/issues/20585). It also averages the first batch over the processes, which
    `keras_internals.BuiltModel` leaves out. `tests/backend/test_workers.py` says when Keras needs this no longer.
    """

    def reduce(self, reduce_op, value, axis):
        """See `tf.distribute.Strategy.reduce`; scalars have no axis and are reduced over the replicas only."""
        scalar = all(part.shape.rank == 0 for part in self._parts(value))
        return super().reduce(reduce_op, value, None if scalar else axis)

    def exchange(self, content):
        """See `processes.Group.exchange`."""
        sizes = self._gather(np.array([len(content)], np.int32))
        rest = self._gather(np.frombuffer(content + bytes(-len(content) % 4), np.int32)).tobytes()
        result = []
        for size in sizes.tolist():
            result.append(rest[:size])
            rest = rest[size + -size % 4 :]
        return result

    def _parts(self, value):
        return self.experimental_local_results(value)

    def _gather(self, words):
        """Concatenates int32 arrays of all processes; the first replica of each process sends."""
        if not hasattr(self, "_gather_function"):
            self._gather_function = tf.function(
                lambda own: self._parts(self.run(self._gather_on_replica, args=(own,)))[0],
                input_signature=[tf.TensorSpec([None], tf.int32)],
            )
        return self._gather_function(words).numpy()

    def _gather_on_replica(self, own):
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group % len(self.extended.worker_devices) == 0
        return replicas.gathered(own[: tf.where(first, tf.size(own), 0)])


def distributed(strategy, data):
    """Batches as `fit` takes them under a strategy.

    Args:
        strategy: a `tf.distribute.Strategy`.
        data: result of `data.batches`; one with a `shard` has this process's part of each batch, which Keras would
            divide again.

    Returns:
        `data` itself where Keras divides the batches; otherwise a `tf.distribute.DistributedDataset`.

    Raises:
        ValueError: a process's part of a batch cannot be divided among its devices.
    """
    if getattr(getattr(data, "rows", None), "shard", None) is None or not isinstance(data, tf.data.Dataset):
        return data
    devices, images = len(strategy.extended.worker_devices), data.element_spec[0]["images"].shape[0]
    if images is None or images % devices:
        raise ValueError(f"{images} images of a process cannot be divided among its {devices} devices")
    part = data if devices == 1 else data.rebatch(images // devices, drop_remainder=True)
    return strategy.distribute_datasets_from_function(lambda context: part)
