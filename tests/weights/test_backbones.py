"""Weights of ResNeXt and MobileNetV2: files of torchvision, whose features are equal, Keras and detectron2."""

import pathlib

import keras
import numpy as np
import pytest
from keras.applications.mobilenet_v2 import MobileNetV2 as KerasMobileNetV2

from keras_maskrcnn import MaskRCNN, backbones
from keras_maskrcnn.models import presets
from keras_maskrcnn.weights import assign, detectron2, torchvision

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "backbones.npz")
SMALL = {"fpn_channels": 8, "box_stage": {"width": 4}, "mask_stage": {"width": 4}}


def arrays_of(names, model):
    return names.lively(names.drawn(names.torchvision_shapes(model)))


@pytest.mark.parametrize("name", ["resnext50_32x4d", "mobilenet_v2"])
def test_features_equal_those_of_torchvision(name, names):
    """The golden file is made by golden/make_backbones.py."""
    arrays, backbone = arrays_of(names, name), backbones.get({"name": name, "norm": "frozen_batch"})
    report = assign.fill(assign.Alone(backbone), arrays, "torchvision", f"{name}.pth")
    assert report.loaded == len(backbone.weights)
    assert {array.rpartition(".")[0] for array in report.unused} <= {"fc", "classifier.1"}
    image = np.random.default_rng(0).normal(size=(1, 75, 101, 3)).astype("float32")
    for level, x in backbone(image).items():
        x = np.asarray(x)[0]
        found = {"mean": x.mean((0, 1)), "std": x.std((0, 1))}
        found["corners"] = x[:: len(x) - 1, :: x.shape[1] - 1, :24]
        for part, values in found.items():
            wanted = GOLDEN[f"{name}/{level}/{part}"]
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_a_classifier_by_path(names, torch_writer, tmp_path):
    path = tmp_path / "mobilenet_v2.pth"
    arrays = {name: torch_writer.tensor(array) for name, array in arrays_of(names, "mobilenet_v2").items()}
    torch_writer.write_zip(path, torch_writer.ordered(arrays))
    model = MaskRCNN(1, "mobilenet_v2", weights=path, **SMALL)
    wanted = arrays_of(names, "mobilenet_v2")["features.2.conv.1.0.weight"].transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(model.backbone.get_layer("stage2_block1_depthwise_conv").kernel, wanted)
    with pytest.raises(ValueError, match="no ImageNet weights for resnext50_32x4d: weights='imagenet' exist"):
        backbones.get({"name": "resnext50_32x4d", "width": 16}, weights="imagenet")


def test_a_detector_on_the_features_of_mobilenet_v2(names):
    """Names as `FasterRCNN(mobilenet_v2().features, …).state_dict()` has them."""
    small = {"box_stage": {"width": 4}, "mask_stage": None}
    model = MaskRCNN.from_preset("faster_rcnn_mobilenet_v2", num_classes=3, rpn_stage={"channels": 1280}, **small)
    features = {
        name.replace("features.", "backbone.", 1): shape
        for name, shape in names.torchvision_shapes("mobilenet_v2").items()
        if name.startswith("features.")
    }
    heads = {
        "rpn.head.conv.0.0": (1280, 1280, 3, 3),
        "rpn.head.cls_logits": (15, 1280, 1, 1),
        "rpn.head.bbox_pred": (60, 1280, 1, 1),
        "roi_heads.box_head.fc6": (4, 1280 * 49),
        "roi_heads.box_head.fc7": (4, 4),
        "roi_heads.box_predictor.cls_score": (4, 4),
        "roi_heads.box_predictor.bbox_pred": (16, 4),
    }
    for name, shape in heads.items():
        features |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    report = assign.fill(model, names.drawn(features), "torchvision", "student.pth")
    assert (report.reinitialised, report.unused) == ([], [])
    assert report.loaded == sum(len(part.weights) for part in model.parts().values())


def test_names_of_a_pyramid_on_mobilenet_v2():
    """As torchvision's `BackboneWithFPN` has them."""
    model = MaskRCNN(1, {"name": "mobilenet_v2", "width": 8}, **SMALL)
    sources = {name for row in torchvision.name_map(model, ()) for name in row.sources}
    assert {"backbone.body.18.0.weight", "backbone.body.1.conv.0.0.weight", "backbone.body.1.conv.1.weight"} <= sources
    assert {"backbone.fpn.inner_blocks.0.0.weight", "backbone.body.17.conv.3.running_var"} <= sources


def test_mobilenet_v2_equals_that_of_keras_applications(monkeypatch):
    made = []

    def network(weights, **options):
        assert weights == "imagenet"
        model, rng = KerasMobileNetV2(weights=None, **options), np.random.default_rng(3)
        for weight in model.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.5, 1.0, weight.shape))
            elif "kernel" not in weight.name:
                weight.assign(rng.normal(0, 0.2, weight.shape))
        made.append(model)
        return model

    monkeypatch.setattr("keras.applications.MobileNetV2", network)
    backbone = backbones.get({"name": "mobilenet_v2", "norm": "frozen_batch"}, weights="imagenet")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype("float32")
    ours = backbone((image - backbone.pixel_mean) / backbone.pixel_std)["C5"]
    theirs = made[0](keras.applications.mobilenet_v2.preprocess_input(image.copy()))
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_keras_weights_need_the_padding_of_tensorflow(monkeypatch):
    from keras_maskrcnn.weights import imagenet

    monkeypatch.setattr(imagenet, "_keras", lambda name: {})
    with pytest.raises(ValueError, match="these weights need padding=same, the backbone has symmetric"):
        backbones.get({"name": "mobilenet_v2", "width": 8, "padding": "symmetric"}, weights="imagenet")


def test_names_and_shapes_of_detectron2s_x101(names, monkeypatch):
    """Every array of `mask_rcnn_X_101_32x8d_FPN_3x` is taken, and has the shape of its variable."""
    theirs = names.detectron2_shapes(blocks=(3, 4, 23, 3))
    for name, shape in theirs.items():
        stage = name.partition("bottom_up.res")[2][:1]
        if not stage:
            continue
        inner = 64 * 2 ** int(stage)  # 32 groups of 8 channels in res2
        if ".conv1." in name or ".conv2." in name:
            shape[0] = inner
        if ".conv2.weight" in name:
            shape[1] = inner // 32
        if ".conv3.weight" in name:
            shape[1] = inner
    assert theirs["backbone.bottom_up.res5.0.conv2.weight"] == [2048, 64, 3, 3]
    with keras.StatelessScope():
        backbone = backbones.get(presets.read("mask_rcnn_resnext101_32x8d_fpn")["config"]["backbone"])
    alone = assign.Alone(backbone)
    alone.neck = "fpn"
    table = list(detectron2._backbone(alone))
    for row in table:
        shape = list(row.variable.shape)
        wanted = theirs[row.sources[0]]
        assert (shape if len(shape) == 1 else [shape[3], shape[2], *shape[:2]]) == wanted, row.name
    bottom_up = {name for name in theirs if ".bottom_up." in name}
    assert {row.sources[0] for row in table} == bottom_up and len(table) == len(bottom_up)
