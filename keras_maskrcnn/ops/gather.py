"""Selection of rows per image."""

from keras import ops


def take_rows(values, index):
    """Selects rows of each image: `values[b, index[b, k]]`.

    Args:
        values: `[B, A, ...]`.
        index: int32 `[B, K]`.

    Returns:
        `[B, K, ...]`.
    """
    count = ops.shape(values)[1]
    start = ops.arange(ops.shape(values)[0], dtype="int32")[:, None] * count
    flat = ops.reshape(values, (-1, *values.shape[2:]))
    return ops.take(flat, start + ops.cast(index, "int32"), axis=0)
