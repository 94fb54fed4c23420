"""Weights of YOLACT's authors: both backbones, files of all ages, and hand-computed layouts."""

import numpy as np
import pytest

from keras_maskrcnn.models import YOLACT, MaskRCNN
from keras_maskrcnn.weights import yolact
from keras_maskrcnn.weights.assign import fill

VERSIONS = {"yolact_resnet50": ("resnet50", 16), "yolact_darknet53": ("darknet53", 8)}
LOADED = {"yolact_resnet50": 53 * 5 + 36, "yolact_darknet53": 52 * 5 + 36}
OUTPUTS = (243, 80)  # logits of the anchors of a location, and of a pixel


def thin(version, num_classes=80, **options):
    """The network at a quarter of its width."""
    name, width = VERSIONS[version]
    backbone = {"name": name, "width": width, "norm": "frozen_batch"}
    sizes = {"stage": {"width": 64}, "prototypes": {"count": 8, "width": 64}, "fpn_channels": 64}
    return YOLACT(num_classes, backbone, **sizes, **options)


@pytest.fixture(scope="module")
def resnet():
    return thin("yolact_resnet50")


@pytest.fixture
def arrays(names, generated):
    """Function from a version to arrays of a quarter of its width."""
    return lambda version: names.drawn(names.narrowed(generated.shapes(version), outputs=OUTPUTS))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_variable_is_filled_and_every_array_used(version, arrays):
    model, file = thin(version), arrays(version)
    table = list(yolact.name_map(model, file))
    filled = [id(row.variable) for row in table]
    assert len(set(filled)) == len(filled)
    assert set(filled) == {id(variable) for part in model.parts().values() for variable in part.weights}
    assert {name for row in table for name in row.sources} == {n for n in file if not n.endswith("num_batches_tracked")}
    assert fill(model, file, "yolact", "file.pth") == (LOADED[version], [], [])


@pytest.mark.parametrize("version", VERSIONS)
def test_shapes_are_those_of_the_presets(version, generated):
    shapes = generated.shapes(version)
    model = YOLACT.from_preset(version, num_classes=80)
    for row in yolact.name_map(model, shapes):
        (source,) = row.sources
        given = np.broadcast_to(np.float32(0), shapes[source])
        assert row.transform(given).shape == tuple(row.variable.shape), row.name


def test_layouts(resnet, arrays):
    file = arrays("yolact_resnet50")
    fill(resnet, file, "yolact", "file.pth")
    block = resnet.backbone.get_layer("stage2_block3_2_conv").kernel
    assert float(block[0, 2, 5, 7]) == file["backbone.layers.1.2.conv2.weight"][7, 5, 0, 2]
    norm = resnet.backbone.get_layer("stage4_block1_shortcut_norm")
    assert float(norm.moving_mean[9]) == file["backbone.layers.3.0.downsample.1.running_mean"][9]
    # The pyramid's layers are listed from C5 to C3.
    assert float(resnet.fpn.lateral["C5"].bias[4]) == file["fpn.lat_layers.0.bias"][4]
    assert float(resnet.fpn.output_conv["C3"].bias[4]) == file["fpn.pred_layers.2.bias"][4]
    assert float(resnet.fpn.down_conv["P7"].bias[4]) == file["fpn.downsample_layers.1.bias"][4]
    # The second anchor's logit of class 7; the third anchor's height.
    kernel = resnet.anchor_head.classes.kernel
    assert float(kernel[1, 0, 3, 81 + 7]) == file["prediction_layers.0.conf_layer.weight"][81 + 7, 3, 1, 0]
    assert float(resnet.anchor_head.deltas.bias[11]) == file["prediction_layers.0.bbox_layer.bias"][11]
    assert float(resnet.prototype_head.enlarged.convs[0].bias[2]) == file["proto_net.8.bias"][2]
    assert float(resnet.prototype_head.prototypes.bias[2]) == file["proto_net.10.bias"][2]


def test_units_of_darknet():
    found = [yolact._darknet_module(unit) for unit in ("stem", "stage1_down", "stage4_block8_1", "stage5_block4_2")]
    assert found == ["_preconv", "layers.0.0", "layers.3.8.conv1", "layers.4.4.conv2"]


def test_first_files_hold_layers_twice(resnet, arrays):
    file = arrays("yolact_resnet50")
    older = {name.replace("layers.0.", "layer1."): array for name, array in file.items() if "layers.0.0.c" in name}
    older = {name: array for name, array in older.items() if name.startswith("backbone.")}
    older["fpn.downsample_layers.2.weight"] = file["fpn.downsample_layers.1.weight"]
    several = {f"module.{name}": array for name, array in {**file, **older}.items()}
    report = fill(resnet, several, "yolact", "file.pth")
    assert older and (report.loaded, report.unused) == (LOADED["yolact_resnet50"], list(older))


def test_other_classes_start_anew(arrays, capsys):
    model = thin("yolact_resnet50", num_classes=3)
    report = fill(model, arrays("yolact_resnet50"), "yolact", "file.pth")
    assert report.reinitialised == ["anchor_head.classes", "pixel_head.logits"]
    assert capsys.readouterr().out.startswith("file.pth: num_classes is 80 in the file, 3 in the model: reinitialised")


def test_the_layer_of_the_semantic_loss_can_be_missing(resnet, arrays):
    file = arrays("yolact_resnet50")
    layer = ["semantic_seg_conv.weight", "semantic_seg_conv.bias"]
    without = thin("yolact_resnet50", semantic_weight=None)
    assert fill(without, file, "yolact", "file.pth").unused == layer
    shorter = {name: array for name, array in file.items() if name not in layer}
    assert fill(resnet, shorter, "yolact", "file.pth").reinitialised == ["pixel_head"]


def test_a_classifier_fills_the_backbone(resnet, names):
    file = names.drawn(names.narrowed(names.torchvision_shapes("resnet50")))
    report = fill(resnet, file, "torchvision", "resnet50.pth")
    assert report.loaded == 53 * 5 and report.reinitialised == [name for name in resnet.parts() if name != "backbone"]


def test_files_of_other_models_are_refused_in_one_line(resnet, names, arrays):
    file = arrays("yolact_resnet50")
    region = MaskRCNN(80, {"name": "resnet10", "width": 8}, fpn_channels=16)
    cases = [
        (region, file, "yolact", "yolact's weights are for models with a part prototype_head, which this one lacks"),
        (region, file, "torchvision", "its names match source='yolact'"),
        (resnet, {}, "detectron2", "detectron2's weights are for models with a part rpn, which this one lacks"),
        (resnet, names.torchvision_shapes("maskrcnn_resnet50_fpn"), "torchvision", "holds a detector; a YOLACT takes"),
        (resnet, arrays("yolact_darknet53"), "yolact", "missing: backbone.conv1.weight"),
        (thin("yolact_resnet50", fpn_norm="batch"), file, "yolact", "unexpected: fpn.lat_layers.0.bias"),
    ]
    for model, given, source, reason in cases:
        with pytest.raises(ValueError) as error:
            fill(model, given, source, "file.pth")
        assert reason in str(error.value) and "\n" not in str(error.value)
