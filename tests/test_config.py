"""Every serialisable class gives back every constructor argument, with values that are not the defaults."""

import functools
import importlib
import inspect
import json
import pkgutil

import keras
import pytest

import keras_maskrcnn.backbones
import keras_maskrcnn.heads
import keras_maskrcnn.layers
import keras_maskrcnn.training.schedules
from keras_maskrcnn.backbones import DarkNet53, EfficientNetLite, MobileNetV2, ResNet, SimpleCNN
from keras_maskrcnn.backbones.backbone import Backbone
from keras_maskrcnn.heads.anchor_head import AnchorHead
from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.cascade import CascadeHead
from keras_maskrcnn.heads.fcn import AuxiliaryHead, FCNHead
from keras_maskrcnn.heads.head import Head
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.map_head import MapHead
from keras_maskrcnn.heads.mask import Deconvolution2x, MaskHead
from keras_maskrcnn.heads.pixel_head import PixelHead
from keras_maskrcnn.heads.prototypes import PrototypeHead
from keras_maskrcnn.heads.region_head import ObjectHead, RegionHead
from keras_maskrcnn.heads.rpn import RPNHead
from keras_maskrcnn.heads.semantic import SemanticHead
from keras_maskrcnn.heads.semantic_loss import SemanticLossHead
from keras_maskrcnn.layers.conv_stack import ConvStack
from keras_maskrcnn.layers.folding import FoldingModel
from keras_maskrcnn.layers.fpn import FPN
from keras_maskrcnn.layers.norm import BatchNorm, FrozenBatchNorm, GroupNorm
from keras_maskrcnn.layers.region_pooling import RegionPooling
from keras_maskrcnn.layers.roi_align import RoIAlign, RoIWarp
from keras_maskrcnn.layers.roi_pool import RoIPool
from keras_maskrcnn.layers.upsampling import Upsampling
from keras_maskrcnn.training.schedules import Cosine, OneCycle, StepLR, Steps, WarmUp

LAYER = {"name": "other", "dtype": "mixed_bfloat16", "trainable": False}
BACKBONE = {"name": "other", "dtype": "mixed_bfloat16"}
FCN_HEAD = {
    "num_classes": 5,
    "fused": 16,
    "upsampling": "deconvolution",
    "skips": "concatenate",
    "stage": {"width": 9, "depth": 2, "dropout": 0.5, "norm": "group", "ignore": 77, "loss_weight": 0.5},
    **LAYER,
}

# Class: (the arguments that it cannot do without, a value other than the default for every argument).
CLASSES = {
    BatchNorm: (
        {},
        {
            "axis": 1,
            "momentum": 0.8,
            "epsilon": 0.02,
            "center": False,
            "scale": False,
            "beta_initializer": keras.initializers.Constant(2.0),
            "gamma_initializer": keras.initializers.Constant(3.0),
            "moving_mean_initializer": keras.initializers.Constant(4.0),
            "moving_variance_initializer": keras.initializers.Constant(5.0),
            "beta_regularizer": keras.regularizers.L2(0.1),
            "gamma_regularizer": keras.regularizers.L2(0.2),
            "beta_constraint": keras.constraints.NonNeg(),
            "gamma_constraint": keras.constraints.NonNeg(),
            "synchronized": True,
            "renorm": True,
            "renorm_clipping": {"rmax": 2.0},
            "renorm_momentum": 0.7,
            **LAYER,
        },
    ),
    FrozenBatchNorm: ({}, {"epsilon": 0.02, **LAYER}),
    GroupNorm: ({}, {"groups": 5, "epsilon": 0.02, **LAYER}),
    ConvStack: ({"depth": 1, "width": 2}, {"depth": 2, "width": 3, "norm": "group", **LAYER}),
    FPN: (
        {},
        {
            "channels": 7,
            "extra_level": False,
            "norm": "group",
            "convolved_levels": 2,
            "upsampling": "bilinear",
            "relu": True,
            **LAYER,
        },
    ),
    RPNHead: (
        {"strides": [8]},
        {
            "strides": [8, 16],
            "stage": {"channels": 7, "depth": 2, "beta": 0.5, "norm": "group"},
            "anchors": {
                "sizes": [[16], [32]],
                "ratios": [1.0],
                "rounded": True,
                "offset": 0.5,
                "spacing": "canvas",
                "square": True,
            },
            "proposals": {
                "pre_nms": 5,
                "post_nms": 4,
                "nms_iou": 0.6,
                "min_size": 2.0,
                "training_pre_nms": 9,
                "training_post_nms": 8,
            },
            "sampling": {
                "size": 9,
                "positive_fraction": 0.25,
                "high": 0.8,
                "low": 0.2,
                "crowd_cover": 0.7,
                "cross_boundary": "ignore",
            },
            **LAYER,
        },
    ),
    BoxHead: (
        {"num_classes": 3},
        {
            "num_classes": 5,
            "stage": {
                "pool": 3,
                "convs": 1,
                "norm": "group",
                "average": True,
                "hidden": 1,
                "width": 7,
                "delta_weights": [1.0, 1.0, 2.0, 2.0],
                "beta": 0.5,
                "class_agnostic": True,
            },
            "sampling": {
                "size": 9,
                "positive_fraction": 0.5,
                "high": 0.6,
                "low": 0.4,
                "crowd_cover": None,
                "keep_best": True,
                "add_ground_truth": False,
            },
            "detection": {
                "score_threshold": 0.3,
                "nms_iou": 0.4,
                "max_detections": 9,
                "candidates": 50,
                "min_size": 2.0,
                "paste": "whole_pixels",
            },
            **LAYER,
        },
    ),
    CascadeHead: (
        {"num_classes": 3},
        {
            "num_classes": 5,
            "cascade": {
                "ious": [0.6, 0.8],
                "delta_weights": [[1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]],
                "loss_weights": [1.0, 0.5],
            },
            "stage": {"pool": 3, "hidden": 1, "width": 7, "delta_weights": [1.0, 1.0, 2.0, 2.0], "beta": 0.5},
            "sampling": {"size": 9, "high": 0.6, "low": 0.4},
            "detection": {"score_threshold": 0.3, "nms_iou": 0.4},
            **LAYER,
        },
    ),
    MaskHead: (
        {"num_classes": 3},
        {
            "num_classes": 5,
            "stage": {
                "pool": 7,
                "width": 7,
                "depth": 2,
                "norm": "batch",
                "targets": "roi_align",
                "loss": "softmax",
                "class_agnostic": True,
                "kind": "mlp",
                "hidden": 3,
            },
            **LAYER,
        },
    ),
    KeypointHead: (
        {},
        {
            "num_keypoints": 3,
            "stage": {"pool": 7, "width": 7, "depth": 2, "norm": "batch"},
            "names": ["left_eye", "right_eye", "nose"],
            **LAYER,
        },
    ),
    SemanticHead: (
        {"num_classes": 3},
        {
            "num_classes": 5,
            "stage": {"width": 7, "norm": None, "ignore": 200, "loss_weight": 0.5},
            "names": ("sky", "sea", "ground", "wall", "road"),
            **LAYER,
        },
    ),
    AnchorHead: (
        {"num_classes": 3, "strides": [8]},
        {
            "num_classes": 5,
            "strides": [8, 16],
            "coefficients": 4,
            "stage": {
                "width": 7,
                "depth": 2,
                "delta_weights": [1.0, 1.0, 2.0, 2.0],
                "beta": 0.5,
                "class_weight": 2.0,
                "box_weight": 0.5,
            },
            "anchors": {"sizes": [[16], [32]], "ratios": [1.0], "spacing": "cells"},
            "matching": {"high": 0.6, "low": 0.3, "crowd_cover": None, "negatives": 2.0},
            "detection": {"nms": "fast", "per_class": 9, "clip": "after_nms"},
            **LAYER,
        },
    ),
    PrototypeHead: (
        {},
        {"stage": {"count": 4, "width": 7, "depth": 2, "weight": 2.0, "positives": 9}, **LAYER},
    ),
    SemanticLossHead: ({"num_classes": 3}, {"num_classes": 5, "weight": 0.5, **LAYER}),
    Deconvolution2x: ({"filters": 3}, {"filters": 5, **LAYER}),
    RoIAlign: (
        {"output_size": 7},
        {
            "output_size": 5,
            "strides": [8, 16],
            "sampling_ratio": 3,
            "aligned": True,
            "implementation": "gather",
            "canonical_size": 56,
            "canonical_level": 3,
            "positions": "random",
            "seed": 11,
            "reduce": "max",
            **LAYER,
        },
    ),
    RoIWarp: (
        {"output_size": 7},
        {
            "output_size": 5,
            "strides": [8, 16],
            "sampling_ratio": 3,
            "aligned": True,
            "implementation": "gather",
            "canonical_size": 56,
            "canonical_level": 3,
            "positions": "random",
            "seed": 11,
            "reduce": "max",
            **LAYER,
        },
    ),
    RoIPool: (
        {"output_size": 7},
        {
            "output_size": 5,
            "strides": [8, 16],
            "implementation": "gather",
            "canonical_size": 56,
            "canonical_level": 3,
            **LAYER,
        },
    ),
    ResNet: (
        {"width": 2},
        {
            "depth": 101,
            "norm": "group",
            "width": 16,
            "groups": 2,
            "width_per_group": 8,
            "freeze_at": 3,
            "norm_epsilon": 0.02,
            "stride_in_1x1": True,
            "stem_pool": "same",
            "pixel_mean": [1.0, 2.0, 3.0],
            "pixel_std": [4.0, 5.0, 6.0],
            "input_channels": 5,
            "dilated": True,
            "output_stride": 16,
            **BACKBONE,
        },
    ),
    DarkNet53: (
        {},
        {"norm": "group", "width": 4, "freeze_at": 3, "norm_epsilon": 0.02, "input_channels": 5, **BACKBONE},
    ),
    EfficientNetLite: ({}, {"variant": 1, "norm": "group", "freeze_at": 3, "input_channels": 5, **BACKBONE}),
    MobileNetV2: (
        {},
        {
            "norm": "group",
            "width": 8,
            "last_conv": False,
            "freeze_at": 3,
            "norm_epsilon": 0.02,
            "padding": "same",
            "pixel_mean": [1.0, 2.0, 3.0],
            "pixel_std": [4.0, 5.0, 6.0],
            "input_channels": 5,
            **BACKBONE,
        },
    ),
    SimpleCNN: ({}, {"channels": [2, 3], "kernel_size": 3, "norm": "frozen_batch", "input_channels": 5, **BACKBONE}),
    FCNHead: ({"num_classes": 3}, FCN_HEAD),
    AuxiliaryHead: ({"num_classes": 3}, FCN_HEAD),
    Upsampling: ({"factor": 2}, {"factor": 4, "method": "bicubic", **LAYER}),
    Steps: ({"base_lr": 1.0, "boundaries": [3]}, {"base_lr": 0.5, "boundaries": [5, 9], "factor": 0.3}),
    StepLR: ({"base_lr": 1.0, "every": 3}, {"base_lr": 0.5, "every": 2.5, "factor": 0.3}),
    OneCycle: (
        {"base_lr": 1.0, "total_steps": 9},
        {"base_lr": 0.5, "total_steps": 8, "rise_steps": 2, "start_factor": 0.2, "final_factor": 0.01},
    ),
    Cosine: (
        {"base_lr": 1.0, "total_steps": 9},
        {"base_lr": 0.5, "total_steps": 8, "hold_steps": 2, "final_factor": 0.3},
    ),
    WarmUp: (
        {"inner": 1.0, "warmup_steps": 9},
        {"inner": Cosine(0.5, 8), "warmup_steps": 7, "start_factor": 0.3},
    ),
}
BASES = {Backbone, FoldingModel, Head, MapHead, PixelHead, RegionHead, RegionPooling, ObjectHead}
PACKAGES = (keras_maskrcnn.layers, keras_maskrcnn.heads, keras_maskrcnn.backbones)
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def arguments(cls):
    """Named constructor arguments."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name for name, p in inspect.signature(cls).parameters.items() if p.kind not in kinds}


def plain(value):
    """Values as JSON would give them back."""
    return json.loads(json.dumps(value, default=keras.saving.serialize_keras_object))


@functools.cache
def changed(cls):
    """An instance with the other values of the table."""
    return cls(**CLASSES[cls][1])


def test_every_registered_class_is_here():
    for package in PACKAGES:
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    places = (*(f"{package.__name__}." for package in PACKAGES), "keras_maskrcnn.training.schedules")
    registered = keras.saving.get_custom_objects().items()
    ours = {cls for name, cls in registered if name.startswith("keras_maskrcnn>") and cls.__module__.startswith(places)}
    assert ours == set(CLASSES)


def test_every_layer_is_registered():
    for package in PACKAGES:
        for module in pkgutil.iter_modules(package.__path__):
            found = vars(importlib.import_module(f"{package.__name__}.{module.name}")).values()
            layers = {c for c in found if isinstance(c, type) and issubclass(c, keras.layers.Layer)} - BASES
            assert {c for c in layers if c.__module__.startswith("keras_maskrcnn")} <= set(CLASSES)


@every_class
def test_the_table_names_every_argument_with_another_value(cls):
    required, other = CLASSES[cls]
    assert arguments(cls) <= set(other)
    usual, new = (plain(made.get_config()) for made in (cls(**required), changed(cls)))
    assert [name for name in other if usual[name] == new[name]] == []


@every_class
def test_every_argument_is_in_the_config_and_survives(cls):
    other, original = CLASSES[cls][1], changed(cls)
    config = original.get_config()
    assert arguments(cls) <= set(config)
    copy = keras.saving.deserialize_keras_object(plain(keras.saving.serialize_keras_object(original)))
    assert type(copy) is cls
    assert plain(copy.get_config()) == plain(config)
    for name, value in other.items():
        if isinstance(value, int | float | str | bool | list):
            stored = getattr(copy, name) if name != "dtype" else copy.get_config()["dtype"]
            if name == "dtype" and not isinstance(stored, str):
                stored = stored["config"]["name"]
            assert (list(stored) if isinstance(value, list) else stored) == value, name
