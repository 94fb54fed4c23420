"""Presets: files that hold constructor arguments, all of them known."""

import inspect
import json

import pytest

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.models import presets


def test_names_are_sorted_and_hold_the_published_one():
    assert presets.names() == sorted(presets.names())
    assert "mask_rcnn_resnet50_fpn" in presets.names()


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_holds_arguments_of_the_model(name):
    config = presets.config(name)
    arguments = set(inspect.signature(MaskRCNN).parameters) - {"num_classes"}
    assert config and set(config) <= arguments
    json.dumps(config)


def test_the_published_one_freezes_for_fine_tuning():
    config = presets.config("mask_rcnn_resnet50_fpn")
    assert config == {"backbone": {"name": "resnet50", "norm": "frozen_batch", "freeze_at": 2}, "neck": "fpn"}


def test_what_a_caller_changes_stays_with_the_caller():
    presets.config("mask_rcnn_resnet50_fpn")["neck"] = None
    assert presets.config("mask_rcnn_resnet50_fpn")["neck"] == "fpn"


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"there is no preset 'resnet'; there are .*mask_rcnn_resnet50_fpn"):
        presets.config("resnet")


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
