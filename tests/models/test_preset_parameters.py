"""Parameters of the presets: those of the same models in torchvision, as `info` prints them."""

import pytest

from keras_maskrcnn import FCN, MaskRCNN
from keras_maskrcnn.cli import main
from keras_maskrcnn.models import presets
from keras_maskrcnn.models.parameters import count_parameters

# `sum(p.numel() for p in model.parameters())` of torchvision 0.28's models with 22 classes and background: all, and
# those that `requires_grad`. ResNets and ResNeXts: MaskRCNN(resnet_fpn_backbone(backbone_name=…, weights=None,
# trainable_layers=3), 23), whose frozen norms have no parameters. MobileNetV2 with FPN: MaskRCNN(BackboneWithFPN(
# mobilenet_v2().features, {"3": "0", "6": "1", "13": "2", "18": "3"}, [24, 32, 96, 1280], 256), 23). Without: the
# features themselves, AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1, 2),)) and MultiScaleRoIAlign(["0"], 7, 2),
# or 14 for masks.
FROZEN_NORMS = {
    "mask_rcnn_resnet101_fpn": (62_975_321, 62_752_921),
    "mask_rcnn_resnext50_32x4d_fpn": (43_492_185, 43_280_537),
    "mask_rcnn_resnext101_32x8d_fpn": (107_119_961, 106_694_809),
}
TRAINED_NORMS = {
    "faster_rcnn_mobilenet_v2": 82_460_606,
    "mask_rcnn_mobilenet_v2": 87_448_533,
    "mask_rcnn_mobilenet_v2_fpn": 22_187_929,
}
# The same of YOLACT in torch with 22 classes and background, see tests/parity/yolact_torch.py; of Yolact(ResNet50, 22)
# and Yolact(DarkNet53, 22).
YOLACT = {"yolact_resnet50": 30_748_967, "yolact_darknet53": 47_367_111}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in FROZEN_NORMS])
def test_frozen_norms_have_no_parameters_in_torchvision(name):
    counts = count_parameters(MaskRCNN.from_preset(name, num_classes=22))
    assert (counts["without_backbone_norm"], counts["trainable_frozen_stem"]) == FROZEN_NORMS[name]
    assert counts["trainable"] == counts["trainable_frozen_stem"]


@pytest.mark.parametrize("name", TRAINED_NORMS)
def test_batch_statistics_are_no_parameters_in_torchvision(name):
    counts = count_parameters(MaskRCNN.from_preset(name, num_classes=22))
    assert counts["without_statistics"] == counts["trainable"] == TRAINED_NORMS[name]
    # MobileNetV2 has 52 norms over 17,056 channels, each with a mean and a variance.
    assert counts["total"] == TRAINED_NORMS[name] + 2 * 17_056


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "count"), [(20, 35_322_218), (22, 35_323_758)])
def test_fcn_has_the_parameters_of_torchvision(classes, count, capsys):
    """`fcn_resnet50(weights=None, weights_backbone=None, num_classes=classes + 1, aux_loss=True)`."""
    counts = count_parameters(FCN.from_preset("fcn_resnet50", num_classes=classes))
    assert counts["without_statistics"] == counts["trainable"] == count
    assert main(["info", "--preset", "fcn_resnet50", "--num-classes", str(classes)]) == 0
    assert f"{count:,}" in capsys.readouterr().out


def test_info_prints_both_counts(capsys):
    assert main(["info", "--preset", "faster_rcnn_mobilenet_v2", "--num-classes", "22"]) == 0
    lines = [line.strip().rsplit("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip()]
    shown = {label.strip(): value for label, value in lines}
    assert shown["parameters"] == "82,494,718" and shown["trainable now"] == "82,460,606"
    assert shown["without batch statistics"] == "82,460,606"


@pytest.mark.parametrize("name", YOLACT)
def test_info_prints_the_count_of_yolact_in_torch(name, capsys):
    assert main(["info", "--preset", name, "--num-classes", "22"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "without batch statistics" in line]
    assert line.split()[-1] == f"{YOLACT[name]:,}"


def test_info_lists_the_presets(capsys, narrow_presets, monkeypatch):
    few = ["faster_rcnn_resnet50_fpn", "mask_rcnn_mobilenet_v2_fpn", "mask_rcnn_resnet50_fpn"]
    monkeypatch.setattr(presets, "names", lambda: few)
    assert main(["info", "--presets"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["preset", "classes", "parameters"]
    assert [line.split()[0] for line in lines] == few
    assert [line.split()[1] for line in lines] == ["90", "80", "90"]
    for name, line in zip(few, lines, strict=True):
        assert line.endswith(presets.read(name)["description"])
    counts = count_parameters(MaskRCNN.from_preset(few[1], num_classes=80))
    assert lines[1].split()[2:4] == [f"{counts['total']:,}", f"{counts['without_statistics']:,}"]


def test_a_preset_with_weights_of_the_backbone_only_needs_the_number_of_classes():
    reason = "mask_rcnn_mobilenet_v2 needs num_classes: there are published weights of its backbone only"
    with pytest.raises(ValueError, match=reason):
        MaskRCNN.from_preset("mask_rcnn_mobilenet_v2")
