"""Cascade R-CNN as a whole model: its stages, freezing, saving, preset; see also `test_tasks`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.models import FirstStage
from keras_maskrcnn.models.parameters import count_parameters

# Random numbers differ under XLA and JAX; samplers that take every candidate are deterministic.
EVERYTHING = {"size": 5000, "positive_fraction": 1.0}
TWO = {"ious": [0.5, 0.7], "delta_weights": [[10, 10, 5, 5], [30, 30, 15, 15]], "loss_weights": [1, 0.5]}


def merged(batch, **changes):
    x, y = batch
    return {**x, **y, **changes}


@pytest.fixture(scope="module")
def model(tiny):
    return tiny(cascade={}, rpn_sampling=EVERYTHING, box_sampling=EVERYTHING)


@pytest.fixture(scope="module")
def detected(model, batch):
    return {name: keras.ops.convert_to_numpy(values) for name, values in model(batch[0]).items()}


def test_fewer_regions_reach_the_ious_of_later_stages(model, batch):
    terms = model(merged(batch), training=True)
    assert float(terms["foreground"]) >= float(terms["foreground_2"]) >= float(terms["foreground_3"]) > 0


@pytest.mark.parametrize("change", [{"crowd": np.ones}, {"boxes": np.zeros}], ids=["crowd", "zero width"])
def test_degenerate_ground_truth_gives_finite_losses_and_gradients(model, batch, change):
    inputs = merged(batch, **{name: make(batch[1][name].shape, batch[1][name].dtype) for name, make in change.items()})
    with tf.GradientTape() as tape:
        terms = model(inputs, training=True)
        total = sum(terms[name] for name in model.loss_names)
    assert all(np.isfinite(value) for value in terms.values())
    gradients = tape.gradient(total, model.trainable_weights)
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients if g is not None)


def test_masks_are_those_of_the_boxes_of_the_last_stage(model, batch, detected):
    assert detected["valid"].any()
    features = model.features(batch[0]["images"], batch[0]["sizes"])
    levels = [features[level] for level in model.region_levels]
    masks = model.mask_head.predict(levels, {name: tf.constant(v) for name, v in detected.items()})["masks"]
    np.testing.assert_allclose(detected["masks"], masks, atol=1e-5)
    assert np.abs(detected["boxes"] - detected["proposals"])[detected["valid"]].max() > 0.01


def test_the_first_stage_view_classifies_with_the_first_box_stage(model, batch):
    view = FirstStage(model, max_proposals=15, classify=True)
    found = view({name: batch[0][name] for name in ("images", "sizes")})
    features = model.features(batch[0]["images"], batch[0]["sizes"])
    crops = model.box_head.align([features[level] for level in model.region_levels], found["boxes"])
    expected = tf.nn.softmax(model.box_head.stages[0].classify_crops(crops)[0])
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)


def test_losses_of_a_stage_have_weights(tiny, batch):
    made = tiny(cascade={})
    made.compile("sgd", loss_weights={"class_loss_3": 5}, run_eagerly=True)
    logs = made.test_on_batch(*batch, return_dict=True)
    plain = sum(logs[name] for name in made.loss_names)
    assert logs["loss"] == pytest.approx(plain + 4 * logs["class_loss_3"], rel=1e-5)


# Configuration and files ------------------------------------------------------------------------------------------


def test_config_round_trip(tiny):
    made = tiny(cascade=TWO)
    config = made.get_config()
    assert config["cascade"] == {
        "ious": (0.5, 0.7),
        "delta_weights": ((10, 10, 5, 5), (30, 30, 15, 15)),
        "loss_weights": (1, 0.5),
    }
    copy = MaskRCNN.from_config(config)
    assert copy.get_config() == config and len(copy.box_head.stages) == 2
    assert tiny().get_config()["cascade"] is None


def test_a_config_without_the_option_has_one_box_stage(tiny):
    config = tiny().get_config()
    del config["cascade"], config["box_stage"]["class_agnostic"]
    old = MaskRCNN.from_config(config)
    assert old.cascade is None and old.box_head.boxes_per_region == 4


def test_keras_file_and_frozen_stages(tiny, batch, tmp_path):
    made = tiny(cascade={})
    made.box_head.stages[1].trainable = False
    made.box_head.stages[2].classes.trainable = False
    frozen = set(made.get_config()["frozen"])
    assert {"box_head/stage2", "box_head/fc1_2", "box_head/classes_2", "box_head/classes_3"} <= frozen
    assert not {"box_head", "box_head/stage3", "box_head/classes", "box_head/fc1_3"} & frozen
    made.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    assert [v.path for v in copy.trainable_variables] == [v.path for v in made.trainable_variables]
    for a, b in zip(made(batch[0]).values(), copy(batch[0]).values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_learns_two_images(tiny, shapes):
    two = data.Subset(shapes, [0, 1])
    x, y = next(iter(data.batches(two, (64, 64), 2, max_instances=6, mask_size=28, backend="numpy")))
    made = tiny(cascade={}, box_stage={"width": 32})
    made.compile(keras.optimizers.AdamW(3e-3))
    losses = []
    for _ in range(60):
        made.reset_metrics()
        losses.append(made.train_on_batch(x, y, return_dict=True))
    for name in ("class_loss", "class_loss_2", "class_loss_3"):
        assert np.mean([logs[name] for logs in losses[-10:]]) < 0.7 * losses[0][name], name


# Preset -----------------------------------------------------------------------------------------------------------


def test_parameters_of_the_preset():
    """Counts of the published layout: ResNet-50, FPN of 256 channels, RPN of 3 anchors, 80 classes."""
    # 53 convolutions without bias hold 23,454,912 weights: torchvision's 25,557,032 for the classifier, less
    # 2048 · 1000 + 1000 for its last layer and 2 · 26,560 for batch norms, of which each channel has four numbers here.
    backbone = 25_557_032 - 2_049_000 - 2 * 26_560
    conv = 9 * 256 * 256 + 256
    fpn = 256 * (256 + 512 + 1024 + 2048) + 4 * 256 + 4 * conv
    rpn = conv + (256 + 1) * 3 + (256 + 1) * 12
    # Each of the three stages: 7·7·256 → 1024 → 1024 → 81 scores and 4 deltas for all classes.
    stage = (7 * 7 * 256 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 81 + (1024 + 1) * 4
    # Masks have a channel for background too, which detectron2's 80 do not have.
    mask = 4 * conv + (4 * 256 * 256 + 256) + (256 + 1) * (80 + 1)
    assert (backbone, stage) == (23_454_912, 13_982_805)
    model = MaskRCNN.from_preset("cascade_mask_rcnn_resnet50_fpn")
    counts = {name: part.count_params() for name, part in model.parts().items()}
    assert counts == {
        "backbone": backbone + 4 * 26_560,
        "fpn": fpn,
        "rpn": rpn,
        "box_head": 3 * stage,
        "mask_head": mask,
    }
    assert count_parameters(model)["total"] == sum(counts.values()) == 71_985_183 + 4 * 26_560
    assert model.box_head.cascade.ious == (0.5, 0.6, 0.7) and model.rpn.proposals.training_post_nms == 2000
