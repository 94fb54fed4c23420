"""Selection of rows per image, and of the first maximum."""

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


def first_maximum(values, axis):
    """Position of the first maximum along an axis, without the operations on bits in Keras' `argmax` of floats.

    LiteRT does not have them: there, Keras orders -0.0 before 0.0, which are equal here.

    Args:
        values: float tensor. Where XLA compiles, it must not fuse their computation into this one, as it does not for
            the results of matrix products: it would compute them twice, with different rounding.
        axis: int.

    Returns:
        int32, without the axis.
    """
    best = ops.max(values, axis=axis, keepdims=True)
    return ops.argmax(ops.cast(values >= best, "int32"), axis=axis)
