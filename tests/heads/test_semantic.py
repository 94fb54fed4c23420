"""Semantic head: layers, loss by hand, labels that are ignored, published names."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_maskrcnn.heads.semantic import SemanticHead
from keras_maskrcnn.ops.maps import enlarge


def head_on(strides=(4, 8, 16, 32), channels=3, num_classes=2, **stage):
    head = SemanticHead(num_classes, {"width": 4, **stage})
    head.connect(strides, channels)
    return head


def levels_of(strides, size=64, channels=3):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, size // s, size // s, channels)).astype("float32") for s in strides]


def test_each_level_is_convolved_and_doubled_to_a_quarter():
    strides = (4, 8, 16, 32)
    head, levels = head_on(strides), levels_of(strides)
    assert list(head.stacks) == ["p2_0", "p3_0", "p4_0", "p4_1", "p5_0", "p5_1", "p5_2"]
    total = 0
    for level, names in zip(levels, (["p2_0"], ["p3_0"], ["p4_0", "p4_1"], ["p5_0", "p5_1", "p5_2"]), strict=True):
        for name in names:
            stack = head.stacks[name]
            level = ops.relu(stack.norms[0](stack.convs[0](level)))
            if name[:2] != "p2":
                level = tf.image.resize(level, [2 * side for side in level.shape[1:3]])
        total += level
    np.testing.assert_allclose(head(levels), head.logits(total), atol=1e-4)
    assert head(levels).shape == (2, 16, 16, 3)


@pytest.mark.parametrize(("strides", "stride"), [((8, 16), 4), ((32,), 4), ((2, 4, 8), 2)])
def test_other_levels(strides, stride):
    head = head_on(strides)
    assert head.stride == stride == head.OUTPUTS[0].stride
    assert head(levels_of(strides)).shape == (2, 64 // stride, 64 // stride, 3)
    assert SemanticHead.OUTPUTS[0].stride == 4  # of the class: not changed


def loss(head, logits, labels):
    return float(head.map_losses(tf.constant(logits), {"semantic": np.array(labels, "uint8")})["semantic_loss"])


def test_the_loss_by_hand():
    head = head_on(norm=None)
    logits = np.zeros((1, 1, 1, 3), "float32")
    logits[..., 1] = np.log(2)  # probabilities 1/4, 1/2, 1/4 in all 16 pixels
    labels = np.full((1, 4, 4), 255)
    labels[0, 0, :3] = 1, 1, 0
    assert loss(head, logits, labels) == pytest.approx((2 * np.log(2) + np.log(4)) / 3)
    assert loss(head_on(loss_weight=0.5), logits, labels) == pytest.approx((2 * np.log(2) + np.log(4)) / 6)


def test_without_a_labelled_pixel_loss_and_gradients_are_zero():
    head = head_on()
    levels = levels_of(head.strides)
    with tf.GradientTape() as tape:
        value = head.losses(levels, {"semantic": np.full((2, 64, 64), 255, "uint8")}, training=True)["semantic_loss"]
    assert float(value) == 0
    assert all(not np.asarray(gradient).any() for gradient in tape.gradient(value, head.trainable_weights))


def test_every_weight_has_a_gradient():
    head = head_on()
    labels = np.random.default_rng(1).integers(0, 3, (2, 64, 64)).astype("uint8")
    with tf.GradientTape() as tape:
        value = head.losses(levels_of(head.strides), {"semantic": labels}, training=True)["semantic_loss"]
    for weight, gradient in zip(head.trainable_weights, tape.gradient(value, head.trainable_weights), strict=True):
        assert np.asarray(gradient).any(), weight.path


def test_the_loss_is_that_of_the_enlarged_logits():
    head = head_on()
    logits = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype("float32")
    labels = np.random.default_rng(3).integers(0, 3, (2, 32, 32))
    expected = keras.losses.sparse_categorical_crossentropy(labels, enlarge(logits, 4), from_logits=True)
    assert loss(head, logits, labels) == pytest.approx(float(np.mean(expected)), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"num_classes": 0}, "num_classes=0 of a semantic head must be 1 to 254"),
        ({"num_classes": 255}, "num_classes=255"),
        ({"num_classes": 3, "stage": {"ignore": 3}}, "must not hold ignore=3"),
        ({"num_classes": 3, "stage": {"loss_weight": -1}}, "loss_weight=-1 must be a number of at least 0"),
        ({"num_classes": 3, "names": ("sky", "sea")}, "2 names for num_classes=3 of a semantic head"),
    ],
)
def test_bad_options(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        SemanticHead(**arguments)


def test_names_are_kept_and_are_numbers_by_default():
    head = SemanticHead(2, names=["sky", "sea"])
    assert SemanticHead.from_config(head.get_config()).OUTPUTS[0].names == ("sky", "sea")
    assert SemanticHead(2).OUTPUTS[0].names == ("1", "2")


def test_a_head_belongs_to_one_model_and_stays_frozen():
    head = SemanticHead(2, {"width": 4}, trainable=False)
    head.connect((4, 8), 3)
    assert head.weights and not head.trainable_weights
    with pytest.raises(ValueError, match="'semantic_head' is part of a model already"):
        head.connect((4, 8), 3)


def test_maps_of_another_size_are_named():
    inputs = {"images": np.zeros((2, 64, 64, 3)), "semantic": np.zeros((2, 32, 64))}
    with pytest.raises(ValueError, match=r"semantic has the shape \(2, 32, 64\); it must be that of the canvas"):
        head_on().check(inputs)


def test_names_of_detectron2():
    head = head_on()
    rows = list(head.published("detectron2", ["sem_seg_head.p2.0.weight"]))
    assert {id(row.variable) for row in rows} == {id(weight) for weight in head.weights}
    names = [row.sources[0] for row in rows]
    assert names[:3] == ["sem_seg_head.p2.0.weight", "sem_seg_head.p2.0.norm.weight", "sem_seg_head.p2.0.norm.bias"]
    assert "sem_seg_head.p5.4.weight" in names and names[-1] == "sem_seg_head.predictor.bias"
    assert list(head.published("detectron2", ["backbone"])) == [] == list(head.published("torchvision", []))
