"""Computation on selected rows: with a dynamic number of rows where the backend allows it, else on all rows."""

from keras import ops

from keras_maskrcnn import backend

# Row counts are rounded up to multiples of this, because oneDNN compiles and caches kernels for every new count.
STEP = 16


def active_rows(mask):
    """Indices of the rows to compute.

    Args:
        mask: bool `[N]`.

    Returns:
        int32 `[n]`, ascending. With dynamic shapes: the positions of True, and the first positions of False up to a
        multiple of `STEP`; n ≥ 1, because not every operation accepts an empty batch. With static shapes: all N
        positions. In both cases the caller must weight rows by `mask`.
    """
    if backend.lowering("mask_rows") == "all":
        return ops.arange(ops.shape(mask)[0], dtype="int32")
    import tensorflow as tf

    # No top_k: inference engines sort slowly, or not, where the number of results is not a constant.
    count = tf.reduce_sum(tf.cast(mask, tf.int32))
    spare = tf.maximum((count + STEP - 1) // STEP, 1) * STEP - count
    others = tf.cumsum(tf.cast(tf.logical_not(mask), tf.int32))
    return tf.cast(tf.where(tf.logical_or(mask, others <= spare))[:, 0], tf.int32)


def restore_rows(values, index, count):
    """Inverse of selecting the rows `index`: `[n, ...]` to `[count, ...]`, zero in the rows not selected."""
    if backend.lowering("mask_rows") == "all":
        return values
    import tensorflow as tf

    return tf.scatter_nd(index[:, None], values, tf.concat([tf.reshape(count, [1]), tf.shape(values)[1:]], axis=0))
