"""Groups of options: where they come from, what they become, what they refuse."""

import dataclasses
import json

import numpy as np
import pytest

from keras_maskrcnn.heads.anchor_head import AnchorMatching, AnchorStage
from keras_maskrcnn.heads.anchors import Anchors, AnchorSampling
from keras_maskrcnn.heads.box import BoxStage
from keras_maskrcnn.heads.cascade import Cascade
from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.fcn import FCNStage
from keras_maskrcnn.heads.ground_truth import Sampling
from keras_maskrcnn.heads.keypoint import KeypointStage
from keras_maskrcnn.heads.mask import MaskStage
from keras_maskrcnn.heads.pixel_head import PixelStage
from keras_maskrcnn.heads.proposals import Proposals
from keras_maskrcnn.heads.prototypes import PrototypeStage
from keras_maskrcnn.heads.region_head import Regions
from keras_maskrcnn.heads.rpn import RPNStage
from keras_maskrcnn.heads.sampled_regions import RegionSampling
from keras_maskrcnn.heads.semantic import SemanticStage
from keras_maskrcnn.inference.placement import Resize
from keras_maskrcnn.options import Options

GROUPS = [
    RPNStage,
    Anchors,
    Proposals,
    Sampling,
    AnchorSampling,
    RegionSampling,
    BoxStage,
    Cascade,
    MaskStage,
    KeypointStage,
    PixelStage,
    SemanticStage,
    AnchorStage,
    AnchorMatching,
    PrototypeStage,
    FCNStage,
    Detection,
    Resize,
    Regions,
]
CHOICES = {
    "targets": "roi_align",
    "loss": "softmax",
    "kind": "mlp",
    "paste": "whole_pixels",
    "rounding": "down",
    "spacing": "canvas",
    "cross_boundary": "ignore",
    "multiple": 96,
    "score_threshold": 0.4,
    "nms_iou": 0.6,
    "scale": 1.5,
    "tiles": (512, 640),
    "pooling": "warp",
    "reduce": "max",
    "ious": (0.4, 0.5, 0.6),
    "loss_weights": (1.0, 0.5, 0.25),
    "delta_weights": ((9.0, 9.0, 4.0, 4.0), (18.0, 18.0, 8.0, 8.0), (27.0, 27.0, 12.0, 12.0)),
    "ignore": 200,
    "nms": "fast",
    "clip": "after_nms",
    "per_class": 7,
    "channels": 7,
    "training_pre_nms": 9,
    "training_post_nms": 8,
    "positive_fraction": 0.3,
    "high": 0.9,
    "low": 0.2,
    "crowd_cover": 0.6,
    "level": 4,
}
FOUR = {"delta_weights": (9.0, 9.0, 4.0, 4.0)}  # of one stage


def other(value):
    """A value of the same kind that is not the default."""
    changed = {
        type(None): lambda: ((16,), (32,)),
        bool: lambda: not value,
        int: lambda: value + 3,
        float: lambda: value + 0.5,
        str: lambda: value + "_other",
        tuple: lambda: (*value, 7.0),
    }
    return changed[type(value)]()


def test_every_group_is_here():
    found = {*(of for base in (Options, Sampling, PixelStage) for of in base.__subclasses__())}
    # The service's settings are in no model's configuration.
    assert set(GROUPS) == {of for of in found if not of.__module__.startswith("keras_maskrcnn.serve.")}


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_survives_json(group):
    choices = {**CHOICES, **(FOUR if group in (BoxStage, AnchorStage) else {})}
    values = {field.name: choices.get(field.name) or other(field.default) for field in dataclasses.fields(group)}
    made = group(**values)
    assert made != group()
    assert all(getattr(made, name) == value for name, value in values.items())
    assert set(made.asdict()) == set(values)
    assert group.of(json.loads(json.dumps(made.asdict()))) == made


@pytest.mark.parametrize("group", GROUPS)
def test_of_takes_nothing_an_instance_or_a_dict(group):
    assert group.of(None) == group.of({}) == group()
    made = group()
    assert group.of(made) is made


@pytest.mark.parametrize("group", GROUPS)
def test_they_are_frozen_and_can_key_a_dict(group):
    made = group()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(group)[0].name, 1)
    assert {made: "found"}[group()] == "found"


def test_every_field_is_described():
    for group in GROUPS:
        described = "".join(cls.__doc__ for cls in group.__mro__ if issubclass(cls, Options))
        for field in dataclasses.fields(group):
            assert f"\n        {field.name}: " in described, f"{group.__name__}.{field.name}"


def test_lists_become_tuples_however_deep():
    made = Anchors(sizes=[[16, 24], [32, 48]], ratios=[1])
    assert made.sizes == ((16, 24), (32, 48)) and made.ratios == (1,)
    assert hash(made) == hash(Anchors(sizes=((16, 24), (32, 48)), ratios=(1,)))


def test_arrays_become_tuples_of_pythons_numbers():
    made = Anchors(sizes=np.float32([[16], [32]]), ratios=[np.float32(1)])
    assert made == Anchors(sizes=((16.0,), (32.0,)), ratios=(1.0,))
    assert json.loads(json.dumps(made.asdict()))["ratios"] == [1.0]
    assert type(AnchorSampling(size=np.int64(8)).size) is int


def test_unknown_fields_are_named():
    with pytest.raises(ValueError, match="Sampling has no option fraction, sise"):
        Sampling.of({"sise": 3, "fraction": 1, "high": 0.5})


def test_anchor_sizes_by_hand():
    default = Anchors()
    assert default.level_sizes((4, 8, 16, 32, 64)) == ((32,), (64,), (128,), (256,), (512,))  # the FPN paper's
    assert default.per_location() == 3
    own = Anchors(sizes=((16, 24), (32, 48)), ratios=(0.5, 1, 2))
    assert own.level_sizes((4, 8)) == ((16, 24), (32, 48))
    assert own.per_location() == 6


@pytest.mark.parametrize("sizes", [(32, 64), ((32,), (64, 96)), ((32,), 64), ((), ()), ()])
def test_anchor_sizes_that_do_not_fit_one_head_are_refused(sizes):
    with pytest.raises(ValueError, match="one tuple per level, all of one length"):
        Anchors(sizes=sizes)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: MaskStage(targets="nearest"), "targets='nearest' is not one of 'area', 'roi_align'"),
        (lambda: MaskStage(loss="focal"), "loss='focal' is not one of 'sigmoid', 'softmax'"),
        (lambda: MaskStage(kind="cnn"), "kind='cnn' is not one of 'fcn', 'mlp'"),
        (lambda: Detection(paste="fast"), "paste='fast' is not one of 'continuous', 'whole_pixels'"),
        (lambda: Anchors(spacing="cell"), "spacing='cell' is not one of 'stride', 'canvas'"),
        (lambda: Resize(rounding="up"), "rounding='up' is not one of 'nearest', 'down'"),
        (lambda: Resize(shorter=800, longer=600), "longer=600 is less than shorter=800"),
        (lambda: Resize(scale=-1), "scale=-1 must be a positive number, or None"),
    ],
)
def test_choices_that_do_not_exist_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: AnchorSampling(size=0), "size=0 must be a whole number of at least 1"),
        (lambda: RegionSampling(size=8.5), "size=8.5 must be a whole number of at least 1"),
        (lambda: AnchorSampling(positive_fraction=2), "positive_fraction=2 must be a number from 0 to 1"),
        (lambda: AnchorSampling(low=0.8), "low=0.8 must not be above high=0.7"),
        (lambda: Sampling(crowd_cover=float("nan")), "crowd_cover=nan must be a number from 0 to 1"),
        (lambda: Proposals(pre_nms=0), "pre_nms=0 must be a whole number of at least 1"),
        (lambda: Proposals(training_post_nms=0), "training_post_nms=0 must be a whole number of at least 1"),
        (lambda: Proposals(nms_iou=7), "nms_iou=7 must be a number from 0 to 1"),
        (lambda: Proposals(min_size=None), "min_size=None must be a number of at least 0"),
        (lambda: Detection(candidates=0), "candidates=0 must be a whole number of at least 1"),
        (lambda: Detection(min_size=-1), "min_size=-1 must be a number of at least 0"),
        (lambda: RPNStage(depth=-1), "depth=-1 must be a whole number of at least 0"),
        (lambda: BoxStage(beta=-1), "beta=-1 must be a number of at least 0"),
        (lambda: BoxStage(hidden=True), "hidden=True must be a whole number of at least 0"),
        (
            lambda: BoxStage(delta_weights=(0, 0, 1, 1)),
            r"delta_weights=\(0, 0, 1, 1\) must hold 4 numbers greater than 0",
        ),
        (lambda: AnchorStage(delta_weights=(1, 1)), r"delta_weights=\(1, 1\) must hold 4 numbers greater than 0"),
        (lambda: MaskStage(depth=-1), "depth=-1 must be a whole number of at least 0"),
        (lambda: KeypointStage(pool=0), "pool=0 must be a whole number of at least 1"),
        (lambda: PrototypeStage(positives=0), "positives=0 must be a whole number of at least 1"),
        (lambda: SemanticStage(loss_weight=-1), "loss_weight=-1 must be a number of at least 0"),
        (lambda: FCNStage(depth="1"), "depth='1' must be a whole number of at least 0"),
        (lambda: Regions(canonical_size=0), "canonical_size=0 must be a number of at least 1"),
        (lambda: Anchors(ratios=1.0), "ratios=1.0 must hold one or more numbers greater than 0"),
        (lambda: Anchors(ratios=()), r"ratios=\(\) must hold one or more numbers greater than 0"),
        (lambda: Anchors(sizes=((8,), (-16,))), r"sizes=\(-16,\) must hold one or more numbers greater than 0"),
    ],
)
def test_values_outside_their_ranges_are_refused(make, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        make()


def test_every_range_is_that_of_a_field():
    for group in GROUPS:
        assert set(group.RANGES) <= {field.name for field in dataclasses.fields(group)}


def test_proposals_differ_in_training_where_asked():
    made = Proposals(pre_nms=9, post_nms=7, training_pre_nms=20)
    assert made.limits(training=True)["pre_nms"] == 20 and made.limits(training=False)["pre_nms"] == 9
    assert made.limits(training=True)["post_nms"] == made.limits(training=False)["post_nms"] == 7
