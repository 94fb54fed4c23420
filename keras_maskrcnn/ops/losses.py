"""Loss terms. Each is a masked sum divided by a count, finite and differentiable also if the mask is empty."""

from keras import ops


def masked_mean(values, mask, count=None):
    """Sum of `values` where `mask`, divided by max(`count`, 1).

    Other entries are replaced by 0 before the sum, not multiplied by 0, so that they may be NaN.

    Args:
        values: float `[...]`.
        mask: bool, broadcastable to `values`.
        count: scalar; None for the number of True entries.

    Returns:
        Scalar.
    """
    mask = ops.broadcast_to(mask, ops.shape(values))
    total = ops.sum(ops.where(mask, values, 0.0))
    count = ops.sum(ops.cast(mask, "float32")) if count is None else ops.cast(count, "float32")
    return total / ops.maximum(count, 1.0)


def binary_cross_entropy(logits, targets):
    """Element-wise `-t log σ(x) - (1 - t) log(1 - σ(x))`, in a form that does not overflow.

    Its derivative is `σ(x) - t` everywhere. The form with max(x, 0) and |x| has another one at x = 0, where the logits
    of empty pixels are as long as all biases are 0.
    """
    return ops.softplus(logits) - logits * targets


def softmax_cross_entropy(logits, labels):
    """Element-wise cross entropy of `logits` `[..., C]` with integer `labels` `[...]`."""
    return -ops.take_along_axis(ops.log_softmax(logits, axis=-1), labels[..., None], axis=-1)[..., 0]


def smooth_l1(error, beta=1.0):
    """Element-wise Huber loss: `0.5 e² / β` for |e| < β, else `|e| - 0.5 β` (Fast R-CNN, eq. 3 with β = 1).

    With β = 0 this is the absolute value.

    Raises:
        ValueError: if `beta` is negative.
    """
    if beta < 0:
        raise ValueError(f"beta={beta} must not be negative")
    size = ops.abs(error)
    if beta == 0:
        return size
    return ops.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)
