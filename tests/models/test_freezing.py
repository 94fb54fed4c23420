"""Frozen layers: part of the configuration, kept by `.keras` files."""

import keras
import numpy as np
import pytest


def trainable_paths(model):
    return {v.path for v in model.trainable_variables}


def test_a_frozen_backbone_stays_frozen_after_loading(tiny, batch, tmp_path):
    model = tiny()
    model.backbone.trainable = False
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert not again.backbone.trainable and trainable_paths(again) == trainable_paths(model)
    before = [np.array(w) for w in again.backbone.weights]
    again.train_on_batch(*batch)
    for old, new in zip(before, again.backbone.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_single_layers_and_nested_ones(tiny, tmp_path):
    model = tiny()
    model.backbone.get_layer("stem_conv").trainable = False
    model.mask_head.stack.trainable = False
    model.box_head.classes.trainable = False
    frozen = model.get_config()["frozen"]
    assert set(frozen) == {"backbone/stem_conv", "box_head/classes", "mask_head/stack", "mask_head/conv1"}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert trainable_paths(again) == trainable_paths(model)


def test_what_a_backbone_freezes_itself_can_be_released(tiny, tmp_path):
    backbone = {"name": "resnet10", "width": 8, "norm": "group", "freeze_at": 2}
    model = tiny(backbone=backbone)
    assert len(model.trainable_variables) < len(tiny().trainable_variables)
    model.backbone.trainable = True
    model.save(tmp_path / "model.keras")
    assert trainable_paths(keras.saving.load_model(tmp_path / "model.keras")) == trainable_paths(model)


def test_frozen_is_an_argument(tiny):
    model = tiny(frozen=["backbone", "rpn"])
    assert not any(v.path.startswith("rpn") for v in model.trainable_variables)
    assert not model.backbone.trainable_variables and model.box_head.trainable_variables


def test_unknown_names_are_rejected(tiny):
    with pytest.raises(ValueError, match="frozen names 'backbone/no_such_layer', which is not a layer of this model"):
        tiny(frozen=["backbone/no_such_layer"])
