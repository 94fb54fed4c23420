"""The cascade of box stages: answers worked by hand, labels of each stage, gradients, degenerate ground truth."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.cascade import Cascade, CascadeHead, label_regions, scaled_gradient
from keras_maskrcnn.heads.proposals import Proposed

SIZES = np.float32([[64, 64]])
TWO = {"ious": (0.5, 0.6), "delta_weights": ((10, 10, 5, 5), (20, 20, 10, 10)), "loss_weights": (1, 1)}
ONE = {"ious": (0.5,), "delta_weights": ((10, 10, 5, 5),), "loss_weights": (1,)}
ONE_REGION = {"size": 1, "add_ground_truth": False}


def truth(boxes, labels=None, crowd=None, valid=None):
    """Ground truth of a batch from boxes `[B, N, 4]`."""
    shape = np.shape(boxes)[:2]
    fields = {
        "boxes": np.float32(boxes),
        "labels": np.ones(shape, "int32") if labels is None else np.int32(labels),
        "crowd": np.zeros(shape, bool) if crowd is None else np.asarray(crowd),
        "valid": np.ones(shape, bool) if valid is None else np.asarray(valid),
    }
    return {name: tf.constant(values) for name, values in fields.items()}


def proposed(*boxes):
    """Proposals of one image."""
    return Proposed(tf.constant(np.float32([boxes])), tf.ones((1, len(boxes)), bool))


def by_hand(first=(5, 0, 0, 0), sampling=None):
    """Two stages whose outputs are their biases: logits (0, log 3) and (0, 0), deltas `first` and (0, 0, 10 log 2, 0).

    A level of zeros, so that no kernel has an effect.
    """
    stage = {"pool": 1, "hidden": 0, "beta": 0.0}
    head = CascadeHead(1, TWO, stage, {**ONE_REGION, **(sampling or {})})
    head.connect((8,), 1)
    outputs = zip(head.stages, ((0, math.log(3)), (0, 0)), (first, (0, 0, 10 * math.log(2), 0)), strict=True)
    for box_stage, logits, deltas in outputs:
        box_stage.classes.bias.assign(logits)
        box_stage.deltas.bias.assign(deltas)
    return head, [tf.zeros((1, 8, 8, 1))]


def test_detection_by_hand():
    # Stage 1 shifts (10, 10, 30, 30) by 5 / 10 of its width; stage 2 doubles the width about the centre 30.
    # Scores of the object are 3 / 4 and 1 / 2.
    head, levels = by_hand()
    found = head.detect(levels, proposed([10, 10, 30, 30]), SIZES)
    assert found["valid"].numpy().sum() == 1 and found["labels"][0, 0] == 1
    np.testing.assert_allclose(found["boxes"][0, 0], [10, 10, 50, 30], atol=1e-4)
    np.testing.assert_allclose(found["scores"][0, 0], (0.75 + 0.5) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found["proposals"][0, 0], [10, 10, 30, 30])


def test_losses_by_hand():
    # The object is (20, 10, 40, 30). The proposal overlaps it by 1/3: background in stage 1, with probability 1/4.
    # After the shift it is the object: class probability 1/2, and the doubled width is an error of 10 log 2.
    head, levels = by_hand()
    regions, terms = head.losses(levels, proposed([10, 10, 30, 30]), truth([[[20, 10, 40, 30]]]), 3, sizes=SIZES)
    expected = {
        "class_loss": math.log(4),
        "box_loss": 0,
        "class_loss_2": math.log(2),
        "box_loss_2": 10 * math.log(2),
        "foreground": 0,
        "background": 1,
        "foreground_2": 1,
    }
    assert {*head.LOSSES, *head.HEALTH} == set(expected)
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, abs=1e-5)
    np.testing.assert_array_equal(regions.boxes[0, 0], [10, 10, 30, 30])  # for the mask head
    assert not regions.positive[0, 0]


def test_loss_weights_multiply_both_losses_of_their_stage():
    head, levels = by_hand()
    given = proposed([10, 10, 30, 30]), truth([[[20, 10, 40, 30]]]), 3
    plain = head.losses(levels, *given)[1]
    head.cascade = Cascade(**{**TWO, "loss_weights": (0.5, 0.25)})
    weighted = head.losses(levels, *given)[1]
    factors = {"class_loss": 0.5, "box_loss": 0.5, "class_loss_2": 0.25, "box_loss_2": 0.25}
    for name in plain:
        assert float(weighted[name]) == pytest.approx(float(plain[name]) * factors.get(name, 1)), name


@pytest.mark.parametrize(("iou", "labels"), [(0.5, [2, 2, 2, 0]), (0.6, [0, 2, 2, 0]), (0.7, [0, 0, 2, 0])])
def test_a_stage_labels_boxes_at_its_own_iou(iou, labels):
    # Boxes of 55, 65 and 75 % of the object's width have these IoUs; the last one is nowhere near.
    boxes = np.float32([[[0, 0, 55, 10], [0, 0, 65, 10], [0, 0, 75, 10], [0, 40, 10, 50]]])
    valid = np.ones((1, 4), bool)
    regions = label_regions(boxes, valid, truth([[[0, 0, 100, 10]]], [[2]]), iou, 0.5)
    np.testing.assert_array_equal(regions.label, [labels])
    np.testing.assert_array_equal(regions.positive, [np.array(labels) > 0])
    assert regions.valid.numpy().all()


def test_a_later_stage_ignores_boxes_inside_a_crowd_and_those_that_are_not_valid():
    boxes = np.float32([[[0, 0, 20, 20], [30, 30, 50, 50], [0, 0, 20, 20], [40, 0, 60, 20]]])
    objects = truth([[[30, 30, 50, 50], [0, 0, 25, 25]]], crowd=[[False, True]])
    regions = label_regions(boxes, np.array([[True, True, False, True]]), objects, 0.6, 0.5)
    np.testing.assert_array_equal(regions.valid, [[False, True, False, True]])
    np.testing.assert_array_equal(regions.label, [[0, 1, 0, 0]])
    as_background = label_regions(boxes, np.ones((1, 4), bool), objects, 0.6, None)
    assert as_background.valid.numpy().all()


def test_refined_boxes_are_clipped_to_the_image_and_empty_ones_are_left_out():
    # The shift by 80 pixels moves the box out of the image; one by 40 pixels leaves half of it, (54, 10, 64, 30).
    objects = truth([[[54, 10, 64, 30]]])
    head, levels = by_hand(first=(22, 0, 0, 0))
    terms = head.losses(levels, proposed([10, 10, 30, 30]), objects, 3, sizes=SIZES)[1]
    assert float(terms["foreground_2"]) == 1
    head, levels = by_hand(first=(40, 0, 0, 0))
    terms = head.losses(levels, proposed([10, 10, 30, 30]), objects, 3, sizes=SIZES)[1]
    assert float(terms["class_loss"]) > 0
    assert float(terms["class_loss_2"]) == float(terms["box_loss_2"]) == float(terms["foreground_2"]) == 0


def test_scaled_gradient():
    values = tf.constant([1.5, -2.0, 1e30])
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = scaled_gradient(values, 1 / 3)
        total = tf.reduce_sum(result * [3.0, 6.0, 9.0])
    np.testing.assert_array_equal(result, values)
    np.testing.assert_allclose(tape.gradient(total, values), [1, 2, 3], rtol=1e-6)


# A head with random weights ---------------------------------------------------------------------------------------

STAGE = {"pool": 2, "hidden": 1, "width": 8}
EVERYTHING = {"size": 40, "positive_fraction": 1.0}
RNG = np.random.default_rng(0)
LEVELS = [tf.constant(RNG.normal(size=(2, 16, 16, 4)).astype("float32"))]
CORNER = RNG.uniform(0, 90, (2, 12, 2))
BOXES = np.concatenate([CORNER, CORNER + RNG.uniform(10, 40, (2, 12, 2))], -1).astype("float32")
GIVEN = Proposed(tf.constant(BOXES), tf.constant(RNG.uniform(size=(2, 12)) < 0.8))
CANVAS = np.float32([[128, 100], [128, 128]])
OBJECTS = {"boxes": BOXES[:, :3] + 2, "labels": [[1, 2, 1], [2, 1, 1]]}


def connected(head):
    keras.utils.set_random_seed(5)
    head.connect((8,), 4)
    return head


def learned(head, objects):
    """The terms, and the gradients of all losses to the weights and to the level."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(LEVELS)
        terms = head.losses(LEVELS, GIVEN, objects, 3, training=True, sizes=CANVAS)[1]
        total = sum(terms[name] for name in head.LOSSES)
    return terms, tape.gradient(total, [w.value for w in head.trainable_weights]), tape.gradient(total, LEVELS[0])


def test_a_cascade_of_one_stage_is_a_class_agnostic_box_head():
    cascade = connected(CascadeHead(2, ONE, STAGE, EVERYTHING))
    single = connected(BoxHead(2, {**STAGE, "class_agnostic": True}, EVERYTHING))
    single.set_weights(cascade.get_weights())
    (terms, gradients, level), (expected, ours, our_level) = (
        learned(head, truth(**OBJECTS)) for head in (cascade, single)
    )
    assert terms.keys() == expected.keys() and len(gradients) == 6
    for name in terms:
        np.testing.assert_array_equal(terms[name], expected[name], err_msg=name)
    for one, other in zip([*gradients, level], [*ours, our_level], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
        assert np.abs(one).max() > 0
    found, wanted = (head.detect(LEVELS, GIVEN, CANVAS) for head in (cascade, single))
    assert found["valid"].numpy().any()
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, err_msg=name)


def test_every_weight_gets_a_gradient_from_its_own_stage_only():
    """Refined boxes carry no gradient to the stage that refined them."""
    head = connected(CascadeHead(2, TWO, STAGE, EVERYTHING))
    weights = [weight.value for weight in head.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        terms = head.losses(LEVELS, GIVEN, truth(**OBJECTS), 3, training=True, sizes=CANVAS)[1]
        stages = [sum(terms[name] for name in head.LOSSES[i : i + 2]) for i in (0, 2)]
    first, second = (tape.gradient(loss, weights) for loss in stages)
    assert len(weights) == 2 * 6
    for own, other in ((first[:6], second[:6]), (second[6:], first[6:])):
        assert all(np.abs(gradient).max() > 0 for gradient in own) and other == [None] * 6


def test_each_stage_sends_its_share_of_the_gradient_to_the_features():
    # With equal weights and no deltas, both stages see the same regions at one IoU: together they are a single stage.
    cascade = Cascade((0.5,) * 2, ((10, 10, 5, 5),) * 2, (1,) * 2)
    head = connected(CascadeHead(2, cascade, STAGE, EVERYTHING))
    single = connected(BoxHead(2, {**STAGE, "class_agnostic": True}, EVERYTHING))
    weights = [*single.get_weights()[:-2], *(np.zeros_like(w) for w in single.get_weights()[-2:])]
    single.set_weights(weights)
    for stage in head.stages:
        stage.set_weights(weights)
    levels = []
    for one in (head, single):
        with tf.GradientTape() as tape:
            tape.watch(LEVELS)
            terms = one.losses(LEVELS, GIVEN, truth(**OBJECTS), 3, sizes=CANVAS * 2)[1]
            total = sum(terms[name] for name in one.LOSSES)
        levels.append(tape.gradient(total, LEVELS[0]))
    np.testing.assert_allclose(levels[0], levels[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{"valid": np.zeros((2, 3), bool)}, {"valid": [[True] * 3, [False] * 3]}, {"crowd": np.ones((2, 3), bool)}],
    ids=["empty", "one image empty", "crowd"],
)
def test_degenerate_ground_truth(changes):
    head = connected(CascadeHead(2, None, STAGE, EVERYTHING))
    terms, gradients, level = learned(head, truth(**OBJECTS, **changes))
    assert all(np.isfinite(value) for value in terms.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients) and np.isfinite(level).all()
    assert all(float(terms[f"class_loss{stage}"]) > 0 for stage in ("", "_2", "_3"))
    without_objects = not np.any(changes.get("valid", False))
    for stage in ("", "_2", "_3"):
        assert (float(terms[f"box_loss{stage}"]) == 0) == (float(terms[f"foreground{stage}"]) == 0) == without_objects


def test_compiled_by_xla_gives_the_same_losses():
    head = connected(CascadeHead(2, TWO, STAGE, EVERYTHING))

    def losses(levels, boxes, valid):
        return head.losses(levels, Proposed(boxes, valid), truth(**OBJECTS), 3, training=True, sizes=CANVAS)[1]

    plain, compiled = losses(LEVELS, *GIVEN), tf.function(losses, jit_compile=True)(LEVELS, *GIVEN)
    for name in plain:
        np.testing.assert_allclose(compiled[name], plain[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cascade": {"ious": ()}}, r"cascade ious=\(\) must be a list with an entry for each stage"),
        ({"cascade": {"ious": (0.5, 0.6)}}, "cascade delta_weights has 3 entries for the 2 stages of ious"),
        ({"cascade": {"ious": (0.5, 0.6, 7)}}, "cascade ious has 7, which must be a number greater than 0 and at most"),
        ({"cascade": {**ONE, "delta_weights": ((1, 2),)}}, r"delta_weights has \(1, 2\), which must be four numbers"),
        ({"cascade": {**ONE, "delta_weights": ((1, 2, 3, 0),)}}, "delta_weights has 0, which must be a number greater"),
        ({"cascade": {**ONE, "loss_weights": (-1,)}}, "loss_weights has -1, which must be a number at least 0"),
        ({"cascade": {"iou": (0.5,)}}, "Cascade has no option iou"),
        ({"sampling": {"high": 0.6}}, "box_sampling high=0.6 must be 0.5, the first of the cascade's ious"),
        ({"stage": {"delta_weights": (1, 1, 1, 1)}}, "box_stage delta_weights=.* the first of the cascade's delta_w"),
    ],
)
def test_options_that_do_not_fit_are_rejected_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        CascadeHead(2, **arguments)
    assert "\n" not in str(error.value)
