"""Copies of a tensor for several consumers, whose gradients are added in a fixed order."""

from keras_maskrcnn import backend


def branches(tensor, count):
    """A tensor for each of several consumers.

    TensorFlow adds three or more gradients of one tensor with AddN, which begins with an input whose buffer it may
    overwrite. Which one that is depends on timing, and so does the last digit of the sum: two runs of one seed would
    differ. Here the gradients are added in pairs.

    Args:
        tensor: a tensor, each copy of which must be used.
        count: number of copies.

    Returns:
        list of `count` tensors.
    """
    if count < 3 or not backend.is_tensorflow():
        return [tensor] * count
    import tensorflow as tf

    @tf.custom_gradient
    def copies(tensor):
        def gradient(total, *others):
            for other in others:
                # Without this barrier the graph optimizer would make one AddN of all additions.
                total, other = tf.raw_ops.IdentityN(input=[total, other])
                total += other
            return total

        return tuple(tf.identity(tensor) for _ in range(count)), gradient

    return list(copies(tensor))
