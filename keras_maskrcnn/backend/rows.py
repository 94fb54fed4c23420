"""Working on the rows that matter: a row count known at run time where the backend allows it, all rows where not."""

from keras import ops

from keras_maskrcnn import backend

# Row counts are rounded up to multiples of this: for every new count oneDNN compiles and keeps new kernels.
STEP = 16


def active_rows(mask):
    """Indices of the rows worth computing.

    Args:
        mask: bool `[N]`.

    Returns:
        int32 `[n]`, no index twice: with dynamic shapes the positions of True and then some of False, until n is a
        multiple of `STEP` (n ≥ 1, so that no operation meets an empty batch); with static shapes all N positions.
        The caller weighs rows by `mask` in either case.
    """
    if backend.lowering("mask_rows") == "all":
        return ops.arange(ops.shape(mask)[0], dtype="int32")
    import tensorflow as tf

    mask = tf.cast(mask, tf.int32)
    count = tf.maximum(-(-tf.reduce_sum(mask) // STEP), 1) * STEP
    return tf.math.top_k(mask, tf.minimum(count, tf.size(mask))).indices  # of equal values the lower index comes first


def restore_rows(values, index, count):
    """Inverse of taking `index`: `[n, ...]` back to `[count, ...]`, zeros in the rows that were left out."""
    if backend.lowering("mask_rows") == "all":
        return values
    import tensorflow as tf

    return tf.scatter_nd(index[:, None], values, tf.concat([tf.reshape(count, [1]), tf.shape(values)[1:]], axis=0))
