"""Random sampling of the candidates that enter a loss (image-centric sampling, Fast R-CNN section 2.3)."""

import keras
from keras import ops

from keras_maskrcnn.ops.matching import NEGATIVE, POSITIVE


def count_positive_slots(size, positive_fraction, slots):
    """Maximum number of positives, which occupy the first slots: `size * positive_fraction`, at least one."""
    return min(max(int(size * positive_fraction), 1), slots)


def hardest(values, candidates, count):
    """The candidates with the highest values (online hard example mining; ties: the lower position first).

    Args:
        values: float32 `[B, A]`.
        candidates: bool `[B, A]`.
        count: `[B]`, candidates per image; where there are fewer, all of them.

    Returns:
        bool `[B, A]`.
    """
    order = ops.argsort(ops.where(candidates, -values, float("inf")), axis=1)
    rank = ops.argsort(order, axis=1)
    return ops.logical_and(candidates, ops.cast(rank, "float32") < ops.cast(count, "float32")[:, None])


def sample(role, size, positive_fraction, seed, uniform=keras.random.uniform):
    """Sample `size` candidates per image, positives first.

    At most max(`size * positive_fraction`, 1) positives are drawn; negatives fill the remaining slots. Positives occupy
    the first slots, so that the mask head, which trains on positives only, computes those slots only.

    Args:
        role: int32 `[B, A]`: 1 (positive), 0 (negative) or -1 (ignored), see `matching.match`.
        size: slots per image.
        positive_fraction: maximum fraction of positives.
        seed: a `keras.random.SeedGenerator` or an integer.
        uniform: draws the random numbers: `keras.random.uniform`, or a function with its arguments `shape`, `dtype` and
            `seed`, such as that of `backend.replicas`.

    Returns:
        (index, valid): int32 `[B, S]`, positions in `role`; bool `[B, S]`, False in empty slots. S is min(`size`, A).
    """
    slots = min(size, role.shape[1])
    positive_slots = count_positive_slots(size, positive_fraction, slots)
    # Keys lie in [0, 1): drawn positives are raised above all negatives, all other candidates get -1.
    key = uniform(ops.shape(role), dtype="float32", seed=seed)
    positive_key = ops.where(role == POSITIVE, key, -1.0)
    last_drawn = ops.top_k(positive_key, positive_slots)[0][:, -1:]
    drawn = ops.logical_and(role == POSITIVE, positive_key >= last_drawn)
    priority = ops.where(drawn, key + 2.0, ops.where(role == NEGATIVE, key, -1.0))
    priority, index = ops.top_k(priority, slots)
    return ops.cast(index, "int32"), priority >= 0
