"""The processes that train one model together: which one this is, and what they tell each other.

A process is in one group, for as long as it runs: TensorFlow and JAX allow no other. Without `join` it is alone.
"""

import dataclasses
import json
import typing

import keras
import numpy as np

from keras_maskrcnn import backend


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of a training.

    Attributes:
        index: number of this process, 0…count - 1. The first one is the chief, which alone writes files.
        count: number of processes.
        exchange: function from the bytes of this process to the list of the bytes of all, in the order of the
            processes. All processes call it together.
        devices: number of devices that a batch is divided among, of all processes.
        strategy: the `tf.distribute.Strategy`; None on JAX, and for a process that is alone without a strategy.
    """

    index: int = 0
    count: int = 1
    exchange: typing.Callable = lambda content: [content]
    devices: int = 1
    strategy: typing.Any = None

    @property
    def is_chief(self):
        """Whether this process writes the files of the run."""
        return self.index == 0

    @property
    def shard(self):
        """(index, count), as `data.batches` takes it; None for a process that is alone."""
        return (self.index, self.count) if self.count > 1 else None

    def gathered(self, value):
        """The values of all processes, in their order; all processes call this together.

        Args:
            value: what JSON holds; NumPy arrays and numbers become lists and Python's numbers.

        Returns:
            list of `count` values.
        """
        if self.count == 1:
            return [value]
        content = json.dumps(value, default=lambda other: np.asarray(other).tolist()).encode()
        return [json.loads(content) for content in self.exchange(content)]

    def wait(self):
        """Waits until all processes are here."""
        self.gathered(None)


_group = Group()


def group():
    """The `Group` of this process."""
    return _group


def join(joined):
    """Makes `joined` the `Group` of this process."""
    global _group
    _group = joined


def mirrored():
    """Joins a group of one process that uses all its devices with `tf.distribute.MirroredStrategy`."""
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy()
    join(Group(devices=strategy.num_replicas_in_sync, strategy=strategy))
    tf.distribute.experimental_set_strategy(strategy)


def workers(index, count):
    """Joins the processes of `TF_CONFIG`, all of which have been started."""
    import tensorflow as tf

    from keras_maskrcnn.backend.tensorflow.workers import Workers

    strategy = Workers()
    join(Group(index, count, strategy.exchange, strategy.num_replicas_in_sync, strategy))
    tf.distribute.experimental_set_strategy(strategy)


def jax_processes(index, count, address):
    """Joins the processes of a JAX coordinator, all of which have been started; batches are divided over all devices.

    Args:
        index: number of this process.
        count: number of processes; None where JAX finds all three, as on a TPU pod.
        address: "host:port" of process 0.
    """
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if count is None:
        jax.distributed.initialize()
        index, count = jax.process_index(), jax.process_count()
    elif count > 1:
        jax.distributed.initialize(address, count, index)
    join(Group(index, count, _exchange_on_jax, jax.device_count()))
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def leave_scope():
    """Ends the scope in which models are made; those made in it are trained on all devices from here on."""
    if _group.strategy is not None:
        import tensorflow as tf

        tf.distribute.experimental_set_strategy(None)


def is_loss(error):
    """Whether an exception says that another process has ended."""
    if _group.count == 1:
        return False
    if backend.is_tensorflow():
        import tensorflow as tf

        kinds = ("UnavailableError", "AbortedError", "CancelledError", "InternalError", "DeadlineExceededError")
        return isinstance(error, tuple(getattr(tf.errors, kind) for kind in kinds))
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def local(value):
    """A copy on one device of this process of a JAX array that all devices have; other arrays as they are."""
    return value.addressable_data(0) if len(value.sharding.device_set) > 1 else value


def _exchange_on_jax(content):
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(content)], np.int32)).ravel()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]
