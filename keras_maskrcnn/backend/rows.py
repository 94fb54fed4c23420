"""Working on the rows that matter: a row count known at run time where the backend allows it, all rows where not."""

from keras import ops

from keras_maskrcnn import backend


def active_rows(mask):
    """Indices of the rows worth computing.

    Args:
        mask: bool `[N]`.

    Returns:
        int32 `[n]`: with dynamic shapes the positions of True (position 0 if there is none, so that no operation
        meets an empty batch); with static shapes all N positions. The caller weighs rows by `mask` in either case.
    """
    if backend.static_shapes():
        return ops.arange(ops.shape(mask)[0], dtype="int32")
    import tensorflow as tf

    first = tf.concat([tf.logical_not(tf.reduce_any(mask))[None], tf.zeros_like(mask[1:])], axis=0)
    return tf.cast(tf.where(tf.logical_or(mask, first))[:, 0], tf.int32)


def restore_rows(values, index, count):
    """Inverse of taking `index`: `[n, ...]` back to `[count, ...]`, zeros in the rows that were left out."""
    if backend.static_shapes():
        return values
    import tensorflow as tf

    return tf.scatter_nd(index[:, None], values, tf.concat([tf.reshape(count, [1]), tf.shape(values)[1:]], axis=0))
