"""Random choice of the candidates that enter a loss (image-centric sampling, Fast R-CNN section 2.3)."""

import keras
from keras import ops

from keras_maskrcnn.ops.matching import NEGATIVE, POSITIVE


def count_positive_slots(size, positive_fraction, slots):
    """How many of the first slots may hold positives: the fraction of the size asked for, one at least."""
    return min(max(int(size * positive_fraction), 1), slots)


def sample(role, size, positive_fraction, seed):
    """Choose `size` candidates an image, positives first.

    At most `size * positive_fraction` positives (but one at least) are drawn; negatives fill what is left. Positives
    occupy the first slots, so that a head which learns from positives alone (the mask head) need only look at those.

    Args:
        role: int32 `[B, A]` of 1 (positive), 0 (negative), -1 (ignored), see `matching.match`.
        size: slots an image.
        positive_fraction: highest share of positives.
        seed: a `keras.random.SeedGenerator` or an integer.

    Returns:
        (index, valid): int32 `[B, S]`, positions in `role`; bool `[B, S]`, False where there was nothing left to
        draw. S is `size`, or A where there are fewer candidates than that.
    """
    slots = min(size, role.shape[1])
    positive_slots = count_positive_slots(size, positive_fraction, slots)
    # Keys lie in [0, 1): positives that were drawn are lifted above all negatives, the rest sinks below zero.
    key = keras.random.uniform(ops.shape(role), dtype="float32", seed=seed)
    positive_key = ops.where(role == POSITIVE, key, -1.0)
    last_drawn = ops.top_k(positive_key, positive_slots)[0][:, -1:]
    drawn = ops.logical_and(role == POSITIVE, positive_key >= last_drawn)
    priority = ops.where(drawn, key + 2.0, ops.where(role == NEGATIVE, key, -1.0))
    priority, index = ops.top_k(priority, slots)
    return ops.cast(index, "int32"), priority >= 0
