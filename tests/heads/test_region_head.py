"""Heads on regions: batch statistics come from valid rows only, in both lowerings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.mask import MaskHead
from keras_maskrcnn.heads.proposals import Proposed
from keras_maskrcnn.heads.region_head import ObjectHead
from keras_maskrcnn.heads.sampled_regions import SampledRegions

IMAGES, SLOTS = 2, 24
LEVEL = np.random.default_rng(0).normal(size=(IMAGES, 16, 16, 4)).astype("float32")


def boxes(count, seed=1):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (IMAGES, count, 2))
    return np.concatenate([corner, corner + rng.uniform(20, 60, (IMAGES, count, 2))], axis=-1).astype("float32")


def truth():
    return {
        "boxes": boxes(3),
        "labels": np.array([[1, 2, 1], [2, 1, 1]], "int32"),
        "masks": np.random.default_rng(2).integers(0, 2, (IMAGES, 3, 8, 8)).astype("uint8"),
        "crowd": np.zeros((IMAGES, 3), "bool"),
        "valid": np.ones((IMAGES, 3), "bool"),
    }


def regions(positives=(2, 3)):
    """The ground-truth boxes in the first slots of each image; negatives follow in half of the slots."""
    given = boxes(SLOTS, seed=3)
    given[:, :3] = truth()["boxes"] + 2
    positive = np.arange(SLOTS)[None] < np.array(positives)[:, None]
    matched = np.where(positive, np.arange(SLOTS), 0).astype("int32")
    label = np.where(positive, np.take_along_axis(truth()["labels"], matched, axis=1), 0).astype("int32")
    valid = np.broadcast_to(np.arange(SLOTS) < SLOTS // 2, positive.shape)
    return SampledRegions(*(tf.constant(v) for v in (given, label, matched, positive, valid)), SLOTS)


def step(head, losses, static, weights=None):
    """Loss, gradients and the weights after the forward pass."""
    if weights is not None:
        head.set_weights(weights)
    with backend.static_shapes_scope(static), tf.GradientTape() as tape:
        loss = sum(losses().values())
    gradients = tape.gradient(loss, [w.value for w in head.trainable_weights])
    return [loss, *gradients, *head.get_weights()]


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * max(np.abs(other).max(), 1))


def connected(head):
    keras.utils.set_random_seed(5)
    head.connect((8,), LEVEL.shape[-1])
    return head


@pytest.mark.parametrize("positives", [(2, 3), (0, 1), (0, 0)])
def test_a_mask_head_with_batch_norm_has_the_same_statistics_in_both_lowerings(positives):
    head = connected(MaskHead(2, {"pool": 4, "width": 6, "depth": 2, "norm": "batch"}))
    weights = head.get_weights()

    def losses():
        return head.losses([LEVEL], regions(positives), truth(), training=True)

    dynamic, static = (step(head, losses, static, weights) for static in (False, True))
    assert_close(dynamic, static)
    moved = np.abs(head.norms[0].moving_mean.numpy()).max()
    assert moved > 0 if any(positives) else moved == 0


def test_mask_statistics_are_those_of_the_positive_regions():
    head = connected(MaskHead(2, {"pool": 4, "width": 6, "depth": 1, "norm": "batch"}))
    head.losses([LEVEL], regions(), truth(), training=True)
    chosen, image = regions().positive.numpy(), np.repeat(np.arange(IMAGES), SLOTS)[:, None].reshape(IMAGES, SLOTS)
    crops = head.align.align_rows([LEVEL], regions().boxes.numpy()[chosen], image[chosen].astype("int32"))
    convolved = keras.ops.convert_to_numpy(head.convs[0](crops))
    np.testing.assert_allclose(head.norms[0].moving_mean, 0.1 * convolved.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_box_statistics_are_those_of_the_sampled_regions():
    """Fewer proposals than slots: the slots that stay empty do not enter the batch statistics."""
    sampling = {"size": SLOTS, "positive_fraction": 1.0, "high": 0.5, "low": 0.5}
    given = boxes(SLOTS, seed=3)
    results = []
    for count in (SLOTS, 6):  # the last 18 proposals are no proposals; then there are none
        head = connected(BoxHead(2, {"pool": 4, "convs": 1, "norm": "batch", "width": 8}, sampling))
        proposed = Proposed(given[:, :count], np.broadcast_to(np.arange(count) < 6, (IMAGES, count)))

        def losses(head=head, proposed=proposed):
            _, terms = head.losses([LEVEL], proposed, truth(), 3, training=True)
            return {name: terms[name] for name in head.LOSSES}

        results.append(step(head, losses, static=False))
    assert_close(*results)
    assert np.abs(head.norms[0].moving_mean.numpy()).max() > 0


class Plain(ObjectHead):
    """A head whose `call` takes no rows."""

    LOSSES = ("plain_loss",)

    def build(self, input_shape):
        self.dense = keras.layers.Dense(1)
        self.dense.build(input_shape)

    def call(self, crops, labels, training=False):
        return self.dense(crops)

    def row_losses(self, predictions, rows, truth):
        return {"plain_loss": keras.ops.mean(predictions)}


def test_a_head_need_not_take_the_valid_rows():
    head = connected(Plain())
    assert np.isfinite(head.losses([LEVEL], regions(), truth(), training=True)["plain_loss"])
