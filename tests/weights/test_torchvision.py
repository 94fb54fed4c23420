"""Weights of torchvision: all published kinds of files, and hand-computed layouts."""

import numpy as np
import pytest

from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.models import FCN, MaskRCNN
from keras_maskrcnn.weights import rows, torchvision
from keras_maskrcnn.weights.assign import fill


def thin(backbone="resnet50", norm="frozen_batch", num_classes=90, **options):
    """torchvision's network at a quarter of its width."""
    stages = {"box_stage": {"width": 256}, "mask_stage": {"width": 64}}
    backbone = {"name": backbone, "norm": norm, "width": 16}
    return MaskRCNN(num_classes, backbone, fpn_channels=64, **{**stages, **options})


@pytest.fixture(scope="module")
def first():
    """A model with the layout of maskrcnn_resnet50_fpn."""
    return thin()


@pytest.fixture(scope="module")
def second():
    """A model with the layout of maskrcnn_resnet50_fpn_v2."""
    return thin(
        norm="batch",
        fpn_norm="batch",
        rpn_stage={"depth": 2},
        box_stage={"width": 256, "convs": 4, "norm": "batch", "hidden": 1},
        mask_stage={"width": 64, "norm": "batch"},
    )


@pytest.fixture
def arrays(names):
    """Function from torchvision's model name to arrays of a quarter of its width."""
    return lambda model: names.drawn(names.narrowed(names.torchvision_shapes(model)))


def all_variables(model, parts):
    return {id(variable) for part in parts for variable in getattr(model, part).weights}


def check_all_filled(model, arrays, parts=("backbone", "fpn", "rpn", "box_head", "mask_head"), spare=()):
    """Every variable of `parts` is assigned once, every array is used unless its name begins with `spare`."""
    table = list(torchvision.name_map(model, arrays))
    filled = [id(row.variable) for row in table]
    assert len(set(filled)) == len(filled)
    assert set(filled) == all_variables(model, parts)
    used = {name for row in table for name in row.sources}
    left = {name for name in arrays if not name.startswith(spare) and not name.endswith("num_batches_tracked")}
    assert used == left
    return fill(model, arrays, "torchvision", "file.pth")


@pytest.mark.parametrize("style", ["today's", "older"])
def test_mask_rcnn(first, arrays, names, style):
    file = arrays("maskrcnn_resnet50_fpn")
    report = check_all_filled(first, file if style == "today's" else names.older_style(file))
    assert (report.loaded, report.reinitialised, report.unused) == (307, [], [])
    expected = file["roi_heads.mask_head.3.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(first.mask_head.convs[3].kernel, expected)


def test_older_style_has_the_published_names(arrays, names):
    older = names.older_style(arrays("maskrcnn_resnet50_fpn"))
    published = "backbone.fpn.inner_blocks.0.weight backbone.fpn.layer_blocks.3.bias rpn.head.conv.weight"
    assert older.keys() >= {*published.split(), "roi_heads.mask_head.mask_fcn1.weight", "roi_heads.box_head.fc6.weight"}


def test_mask_rcnn_v2(second, arrays):
    report = check_all_filled(second, arrays("maskrcnn_resnet50_fpn_v2"))
    assert (report.loaded, report.reinitialised, report.unused) == (363, [], [])


@pytest.fixture(scope="module")
def pixels():
    """Function that makes a model with the layout of fcn_resnet50."""
    backbone = {"name": "resnet50", "width": 16, "output_stride": 8}
    stages = {"stage": {"width": 128}, "auxiliary": {"width": 64, "loss_weight": 0.5}}
    return lambda num_classes=20, **options: FCN(num_classes, backbone, **{**stages, **options})


def test_fcn(pixels, arrays):
    model, file = pixels(), arrays("fcn_resnet50")
    report = check_all_filled(model, file, parts=("backbone", "head", "auxiliary"))
    assert (report.loaded, report.reinitialised, report.unused) == (53 * 5 + 2 * 7, [], [])
    expected = file["classifier.4.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.head.logits.kernel, expected)
    np.testing.assert_array_equal(model.auxiliary.stack.norms[0].moving_mean, file["aux_classifier.1.running_mean"])


def test_fcn_without_the_auxiliary_classifier_and_with_other_classes(pixels, arrays, capsys):
    file = arrays("fcn_resnet50")
    report = fill(pixels(auxiliary=None), file, "torchvision", "file.pth")
    assert report.loaded == 53 * 5 + 7 and all(name.startswith("aux_classifier.") for name in report.unused)
    main = {name: array for name, array in file.items() if not name.startswith("aux_")}
    report = fill(pixels(num_classes=3), main, "torchvision", "file.pth")
    assert report.reinitialised == ["fcn_head.logits", "auxiliary_head"]
    assert "num_classes is 20 in the file, 3 in the model" in capsys.readouterr().out


def test_names_after_several_gpus(first, arrays):
    file = {f"module.{name}": array for name, array in arrays("maskrcnn_resnet50_fpn").items()}
    assert fill(first, file, "torchvision", "file.pth").loaded == 307


@pytest.mark.parametrize("version", ["", "_v2"])
def test_faster_rcnn_keeps_the_mask_head(first, second, arrays, version, capsys):
    model = second if version else first
    before = [np.array(variable) for variable in model.mask_head.weights]
    parts = ("backbone", "fpn", "rpn", "box_head")
    report = check_all_filled(model, arrays(f"fasterrcnn_resnet50_fpn{version}"), parts)
    assert report.reinitialised == ["mask_head"]
    assert capsys.readouterr().out == "file.pth: has no mask_head; unchanged in the model\n"
    for variable, value in zip(model.mask_head.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"])
def test_a_model_without_mask_head_takes_files_with_and_without(arrays, name):
    model = thin(mask_stage=None)
    report = check_all_filled(model, arrays(name), ("backbone", "fpn", "rpn", "box_head"), spare="roi_heads.mask")
    assert (report.loaded, report.reinitialised) == (295, [])
    assert len(report.unused) == (12 if name.startswith("mask") else 0)


def test_keypoint_rcnn(arrays):
    """A quarter of the width: the 17 outputs of the last layer are no width."""
    head = KeypointHead(stage={"width": 128}, name="keypoint_head")
    model = thin(num_classes=1, mask_stage=None, heads=[head])
    file = arrays("keypointrcnn_resnet50_fpn")
    name = "roi_heads.keypoint_predictor.kps_score_lowres"
    file = {**file, f"{name}.weight": np.ones((128, 17, 4, 4)), f"{name}.bias": np.ones(17)}
    table = list(torchvision.name_map(model, file))
    assert {id(row.variable) for row in table} == {id(variable) for variable in model.weights if "/" in variable.path}
    report = fill(model, file, "torchvision", "file.pth")
    assert (report.loaded, report.reinitialised, report.unused) == (313, [], [])
    expected = file["roi_heads.keypoint_head.6.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(head.convs[3].kernel, expected)


def test_keypoint_rcnn_keeps_mask_head_and_class_layers(first, arrays, capsys):
    file = arrays("keypointrcnn_resnet50_fpn")
    report = check_all_filled(first, file, ("backbone", "fpn", "rpn", "box_head"), spare="roi_heads.keypoint")
    assert report.reinitialised == ["box_head.classes", "box_head.deltas", "mask_head"]
    assert len(report.unused) == 18
    lines = capsys.readouterr().out.splitlines()
    counts = "num_classes is 1 in the file, 90 in the model"
    assert lines[0] == f"file.pth: {counts}: reinitialised box_head.classes, box_head.deltas"
    assert len(lines) == 2


def test_classifier_weights_fill_only_the_backbone(first, arrays, capsys):
    before = [np.array(variable) for variable in first.fpn.weights]
    report = check_all_filled(first, arrays("resnet50"), ("backbone",), spare="fc.")
    assert (report.loaded, report.unused) == (265, ["fc.weight", "fc.bias"])
    assert report.reinitialised == ["fpn", "rpn", "box_head", "mask_head"]
    assert capsys.readouterr().out.startswith("file.pth: has no fpn, rpn, box_head, mask_head")
    for variable, value in zip(first.fpn.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_basic_blocks_and_no_neck(arrays):
    model = thin("resnet18", neck=None)
    assert check_all_filled(model, arrays("resnet18"), ("backbone",), spare="fc.").loaded == 100
    expected = arrays("resnet18")["layer4.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.backbone.get_layer("stage4_block1_shortcut_conv").kernel, expected)


def test_layouts(first, arrays):
    file = arrays("maskrcnn_resnet50_fpn")
    fill(first, file, "torchvision", "file.pth")
    stem = first.backbone.get_layer("stem_conv").kernel
    assert float(stem[1, 2, 0, 5]) == file["backbone.body.conv1.weight"][5, 0, 1, 2]
    norm = first.backbone.get_layer("stage2_block1_shortcut_norm")
    assert float(norm.moving_variance[3]) == file["backbone.body.layer2.0.downsample.1.running_var"][3]
    assert float(norm.gamma[3]) == file["backbone.body.layer2.0.downsample.1.weight"][3]
    # Row (y, x, channel) here is column (channel, y, x) in torch: y = 2, x = 6, channel = 40 of 64.
    hidden = first.box_head.hidden[0].kernel
    assert float(hidden[(2 * 7 + 6) * 64 + 40, 9]) == file["roi_heads.box_head.fc6.weight"][9, 40 * 49 + 2 * 7 + 6]
    assert float(first.box_head.deltas.kernel[7, 4 * 3 + 1]) == file["roi_heads.box_predictor.bbox_pred.weight"][13, 7]
    assert float(first.rpn.deltas.bias[6]) == file["rpn.head.bbox_pred.bias"][6]
    assert (
        float(first.mask_head.deconvolution.kernel[2, 0, 1, 7])
        == (file["roi_heads.mask_predictor.conv5_mask.weight"][2, 7, 0, 1])
    )


def test_flattened_regions_give_the_same_product():
    rng = np.random.default_rng(0)
    regions, kernel = rng.normal(size=(2, 5, 3, 3)), rng.normal(size=(4, 45))  # [N, C, y, x] and torch's [out, in]
    ours = regions.transpose(0, 2, 3, 1).reshape(2, -1) @ rows.torch_flattened(3)(kernel)
    np.testing.assert_allclose(ours, regions.reshape(2, -1) @ kernel.T)


def test_transposed_convolution_by_definition(first):
    """Torch: cell (i, j) adds input × weight[in, out, y, x] to pixel (2i + y, 2j + x)."""
    rng = np.random.default_rng(0)
    layer, size = first.mask_head.deconvolution, 2
    weight = rng.normal(size=(64, 64, 2, 2)).astype("float32")
    layer.kernel.assign(rows.torch_deconvolution(weight))
    layer.bias.assign(np.zeros(64))
    cells = rng.normal(size=(1, size, size, 64)).astype("float32")
    expected = np.einsum("nijc,coyx->niyjxo", cells, weight).reshape(1, 2 * size, 2 * size, 64)
    np.testing.assert_allclose(layer(cells), expected, rtol=1e-4, atol=1e-4)
