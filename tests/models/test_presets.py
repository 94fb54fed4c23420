"""Presets: files with valid constructor arguments, conventions and sources of weights."""

import inspect
import json

import keras
import pytest

from keras_maskrcnn import MaskRCNN, weights
from keras_maskrcnn.models import presets
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.models.image_model import ImageModel


def test_names_are_sorted_and_include_the_published_one():
    assert presets.names() == sorted(presets.names())
    assert "mask_rcnn_resnet50_fpn" in presets.names()


@pytest.mark.parametrize("name", presets.published())
def test_every_preset_holds_arguments_of_the_model(name):
    preset = presets.read(name)
    config, model = preset["config"], keras.saving.get_registered_object(preset.get("class", presets.CLASS))
    bases = [model, ImageModel, *([InstanceModel] if issubclass(model, InstanceModel) else [])]
    arguments = {name for of in bases for name in inspect.signature(of).parameters}
    assert config and set(config) <= arguments - {"num_classes", "common"}
    json.dumps(config)


@pytest.mark.parametrize("name", presets.published())
def test_every_preset_lists_conventions_and_the_source_of_its_weights(name):
    preset = presets.read(name)
    assert set(preset) - {"class"} == {"description", "config", "conventions", "weights"}
    topics = {"batch norm", "stride", "pixels", "resize"}
    if preset.get("class") == "keras_maskrcnn>FCN":
        topics |= {"labels", "maps"}
    else:
        topics |= {"anchors", "boxes", "detections", "pyramid" if "class" in preset else "RoIAlign"}
        topics |= {"masks", "mask targets"} if preset["config"].get("mask_stage", {}) is not None else set()
    heads = {head["class_name"] for head in preset["config"].get("heads", ())}
    topics |= {"keypoints"} if "KeypointHead" in heads else set()
    assert set(preset["conventions"]) - {"proposals"} == topics and all(preset["conventions"].values())
    assert preset["weights"]["source"] in weights.SOURCES
    facts = {"source", "file", "url", "sha256", "classes", "licence", "metrics"}
    assert set(preset["weights"]) - {"schedule"} == facts  # not every publisher states the schedule


def test_conventions_of_torchvision():
    config = presets.read("mask_rcnn_resnet50_fpn")["config"]
    assert config["backbone"] == {"name": "resnet50", "norm": "frozen_batch", "freeze_at": 2, "norm_epsilon": 0.0}
    assert config["anchors"]["rounded"] and config["detection"]["paste"] == "whole_pixels"
    assert config["resize"] == {"shorter": 800, "longer": 1333, "rounding": "down", "antialias": False}


def test_changes_by_a_caller_do_not_affect_the_preset():
    presets.read("mask_rcnn_resnet50_fpn")["config"]["neck"] = None
    assert presets.read("mask_rcnn_resnet50_fpn")["config"]["neck"] == "fpn"


def test_options_of_a_group_are_merged_and_the_rest_is_replaced():
    config = {
        "neck": "fpn",
        "backbone": {"name": "resnet50", "norm": "batch"},
        "resize": {"shorter": 800, "longer": 1333},
    }
    overrides = {"neck": None, "backbone": {"name": "resnet18"}, "resize": {"shorter": 600}, "seed": 3}
    assert presets.overridden(config, overrides) == {
        "neck": None,
        "backbone": {"name": "resnet18", "norm": "batch"},
        "resize": {"shorter": 600, "longer": 1333},
        "seed": 3,
    }


def test_unknown_names_raise_an_error_that_lists_the_presets():
    with pytest.raises(ValueError, match=r"there is no preset 'resnet'; the presets are .*mask_rcnn_resnet50_fpn"):
        presets.read("resnet")


def test_a_model_from_a_preset_with_overrides():
    model = MaskRCNN.from_preset(
        "mask_rcnn_resnet50_fpn",
        num_classes=2,
        backbone={"name": "resnet18", "norm": "frozen_batch", "width": 4, "freeze_at": 2},
        fpn_channels=8,
        box_stage={"width": 8},
        mask_stage={"width": 8},
    )
    assert model.num_classes == 2 and model.backbone.depth == 18 and model.fpn_channels == 8
