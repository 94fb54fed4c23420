"""Loss terms. Each is a masked sum divided by a stated count, finite and differentiable when nothing counts."""

from keras import ops


def masked_mean(values, mask, count=None):
    """Sum of `values` where `mask`, divided by `count` (default: the number of True entries), at least 1.

    Masked entries are replaced before the sum, not multiplied by zero, so that a NaN there cannot leak.

    Args:
        values: float `[...]`.
        mask: bool, broadcastable to `values`.
        count: scalar, or None.

    Returns:
        Scalar.
    """
    mask = ops.broadcast_to(mask, ops.shape(values))
    total = ops.sum(ops.where(mask, values, 0.0))
    count = ops.sum(ops.cast(mask, "float32")) if count is None else ops.cast(count, "float32")
    return total / ops.maximum(count, 1.0)


def binary_cross_entropy(logits, targets):
    """Element-wise `-t log σ(x) - (1 - t) log(1 - σ(x))` in the form that never overflows."""
    return ops.maximum(logits, 0.0) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))


def softmax_cross_entropy(logits, labels):
    """Cross entropy of `logits` `[..., C]` with integer `labels` `[...]`, element-wise."""
    return -ops.take_along_axis(ops.log_softmax(logits, axis=-1), labels[..., None], axis=-1)[..., 0]


def smooth_l1(error, beta=1.0):
    """Element-wise Huber form `0.5 e² / β` for |e| < β, else `|e| - 0.5 β` (Fast R-CNN, eq. 3 with β = 1).

    With β = 0 this is the absolute value.

    Raises:
        ValueError: if `beta` is below 0.
    """
    if beta < 0:
        raise ValueError(f"beta={beta} must not be below 0")
    size = ops.abs(error)
    if beta == 0:
        return size
    return ops.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)
