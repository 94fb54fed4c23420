"""Sums and means over the replicas of a `tf.distribute` strategy; without one, nothing is added to the graph.

The rule: the mean of a loss over the replicas, and the mean of its gradients, are the loss and the gradients of one
replica with the global batch. A replica divides the sum over its own images by the share of one replica in the count
over the images of all replicas, see `global_mean`. The losses of a head that uses `ops.losses.masked_mean` itself are
the mean of the replicas' own means, which differs where their counts differ.
"""

import keras
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.ops.losses import masked_mean


def number():
    """Number of replicas that run the current step together; 1 outside of a step and on other backends."""
    context = _context()
    return context.num_replicas_in_sync if context else 1


def total(values):
    """Sum of the values of all replicas, of a tensor or a structure of tensors."""
    return _reduced("SUM", values)


def mean(values):
    """Mean of the values of all replicas, of a float tensor or a structure of float tensors."""
    return _reduced("MEAN", values)


def gathered(values):
    """Rows of all replicas, first replica first: `[n, ...]` to `[N, ...]`."""
    return values if number() == 1 else _context().all_gather(_placed(values), axis=0)


def uniform(shape, dtype, seed):
    """`keras.random.uniform` of rows for the images of a batch: those that one replica with the global batch draws.

    Every replica draws the rows of all replicas and takes its own, so that what is sampled does not depend on how the
    batch is divided. Without that, all replicas would draw the same.

    Args:
        shape: of the replica's rows, `[n, ...]`; n is the same on all replicas.
        dtype: of the numbers.
        seed: `keras.random.SeedGenerator` or integer.
    """
    replicas = number()
    if replicas == 1:
        return keras.random.uniform(shape, dtype=dtype, seed=seed)
    rows = shape[0]
    drawn = keras.random.uniform((rows * replicas, *shape[1:]), dtype=dtype, seed=seed)
    first = _context().replica_id_in_sync_group * rows
    return drawn[first : first + rows]


def global_mean(values, mask, count=None):
    """`ops.losses.masked_mean` with the count of all replicas, times the number of replicas.

    The mean of the results of all replicas equals `masked_mean` over the global batch.

    Args:
        values: float `[...]`.
        mask: bool, broadcastable to `values`.
        count: scalar, this replica's count; None for the number of True entries.

    Returns:
        Scalar.
    """
    replicas = number()
    if replicas == 1:
        return masked_mean(values, mask, count)
    if count is None:
        count = ops.sum(ops.cast(ops.broadcast_to(mask, ops.shape(values)), "float32"))
    return masked_mean(values, mask, total(count)) * replicas


def _reduced(how, values):
    empty = isinstance(values, list) and not values  # TensorFlow fails on an empty list
    return values if empty or number() == 1 else _context().all_reduce(how, _placed(values))


def _placed(values):
    """The values on the device of a process that has one: TensorFlow asks them for it, and they may have none."""
    import tensorflow as tf

    devices = _context().strategy.extended.worker_devices
    if len(devices) > 1:
        return values
    with tf.device(devices[0]):
        return tf.nest.map_structure(tf.identity, values)


def _context():
    """The `tf.distribute.ReplicaContext` of the current step, or None."""
    if not backend.is_tensorflow():
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()
