"""`weights.load`: loading from a file, and errors: a message of one line, and an unchanged model."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_maskrcnn
from keras_maskrcnn import weights
from keras_maskrcnn.models import MaskRCNN
from keras_maskrcnn.weights.assign import LISTED, fill

FILE = "folder/file.pth"
CLASS_LAYERS = ("box_head.classes", "box_head.deltas", "mask_head.logits")


@pytest.fixture(scope="module")
def model():
    return thin(num_classes=90)


def thin(num_classes, backbone="resnet18"):
    stages = {"box_stage": {"width": 256}, "mask_stage": {"width": 64}}
    return MaskRCNN(num_classes, {"name": backbone, "width": 16}, fpn_channels=64, **stages)


@pytest.fixture
def arrays(names):
    return names.drawn(names.narrowed(names.torchvision_shapes("maskrcnn_resnet18_fpn")))


def variables(model):
    return [variable for part in model.parts().values() for variable in part.weights]


def rejection(model, arrays, source="torchvision"):
    """The one-line error message of `fill`, after a check that the model is unchanged."""
    for variable in variables(model):
        variable.assign(np.full(variable.shape, 0.5))
    with pytest.raises(ValueError) as error:
        fill(model, arrays, source, FILE)
    assert all((np.array(variable) == 0.5).all() for variable in variables(model))
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"{FILE}: ")
    return message.removeprefix(f"{FILE}: ")


def test_safetensors_file(tmp_path, model, arrays):
    path = tmp_path / "model.safetensors"
    save_file(arrays, path)
    report = keras_maskrcnn.weights.load(model, path, "torchvision")
    assert report == weights.Report(loaded=142, reinitialised=[], unused=[])
    np.testing.assert_array_equal(model.rpn.objectness.bias, arrays["rpn.head.cls_logits.bias"])


def test_unknown_source(model):
    assert weights.SOURCES == ("torchvision", "detectron2", "matterport", "yolact")
    with pytest.raises(ValueError, match=r"'caffe' .*torchvision, detectron2, matterport, yolact"):
        weights.load(model, FILE, "caffe")


def test_half_precision_and_doubles(model, arrays):
    name = "rpn.head.cls_logits.bias"
    for dtype in ("float16", "float64"):
        fill(model, {**arrays, name: arrays[name].astype(dtype)}, "torchvision", FILE)
        np.testing.assert_array_equal(model.rpn.objectness.bias, arrays[name].astype(dtype).astype("float32"))


def test_another_class_count(arrays, capsys):
    model = thin(num_classes=3)
    initial = {name: values(model, name) for name in CLASS_LAYERS}
    for name in CLASS_LAYERS:
        layer(model, name).kernel.assign(layer(model, name).kernel + 1)
        layer(model, name).bias.assign(layer(model, name).bias + 1)
    report = fill(model, arrays, "torchvision", FILE)
    assert report.reinitialised == list(CLASS_LAYERS)
    assert report.loaded == 142 - 6
    layers = "box_head.classes, box_head.deltas, mask_head.logits"
    line = f"{FILE}: num_classes is 90 in the file, 3 in the model: reinitialised {layers}\n"
    assert capsys.readouterr().out == line
    for name in CLASS_LAYERS:
        for was, now in zip(initial[name], values(model, name), strict=True):
            np.testing.assert_array_equal(was, now)
    np.testing.assert_array_equal(model.box_head.hidden[1].bias, arrays["roi_heads.box_head.fc7.bias"])


def layer(model, name):
    part, attribute = name.split(".")
    return getattr(getattr(model, part), attribute)


def values(model, name):
    return [np.array(layer(model, name).kernel), np.array(layer(model, name).bias)]


def test_the_same_class_count_prints_nothing(model, arrays, capsys):
    fill(model, arrays, "torchvision", FILE)
    assert capsys.readouterr().out == ""


def test_missing_names(model, arrays):
    del arrays["rpn.head.cls_logits.bias"], arrays["roi_heads.box_head.fc7.weight"]
    assert rejection(model, arrays) == (
        "holds 140 of the 142 arrays that this model takes from torchvision; "
        "missing: rpn.head.cls_logits.bias, roi_heads.box_head.fc7.weight"
    )


def test_unexpected_names(model, arrays):
    message = rejection(model, {**arrays, "backbone.extra.weight": np.zeros(2)})
    assert message.endswith("; unexpected: backbone.extra.weight")


def test_many_names_are_counted(model, arrays):
    message = rejection(model, {name: array for name, array in arrays.items() if name.startswith("rpn")})
    lacks = message.partition("missing: ")[2]
    assert lacks.count(", ") == LISTED - 1 and lacks.endswith(" and 118 more")


def test_another_architecture(model):
    message = rejection(model, {"features.0.weight": np.zeros((64, 3, 3, 3), "float32")})
    assert message.startswith("holds 0 of the 130 arrays that this model takes from torchvision; missing: ")
    assert message.endswith("unexpected: features.0.weight")


def test_a_deeper_backbone(model, names):
    message = rejection(model, names.drawn(names.narrowed(names.torchvision_shapes("maskrcnn_resnet50_fpn"))))
    assert "unexpected: backbone.body.layer1.0.conv3.weight" in message


def test_another_source(model, arrays, names):
    assert rejection(model, arrays, "detectron2").endswith("; its names match source='torchvision'")
    detectron2 = names.drawn(names.narrowed(names.detectron2_shapes()))
    assert rejection(model, detectron2).endswith("; its names match source='detectron2'")


def test_other_widths(model, names):
    message = rejection(model, names.drawn(names.narrowed(names.torchvision_shapes("maskrcnn_resnet18_fpn"), factor=2)))
    assert message == (
        "backbone.body.conv1.weight [32, 3, 7, 7] does not fit backbone.stem_conv.kernel [7, 7, 3, 16]: "
        "weights for another backbone or other widths"
    )


@pytest.mark.parametrize("shape", [(256, 3137), (256,), (2, 3136)])
def test_arrays_of_wrong_shape(model, arrays, shape):
    arrays["roi_heads.box_head.fc6.weight"] = np.zeros(shape, "float32")
    message = rejection(model, arrays)
    assert message.startswith(f"roi_heads.box_head.fc6.weight {list(shape)} does not fit box_head.hidden.0.kernel")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(model, arrays, value):
    arrays["roi_heads.box_head.fc7.weight"][3, 4] = value
    assert rejection(model, arrays) == "roi_heads.box_head.fc7.weight holds numbers that are not finite"


def test_arrays_that_are_not_numeric(model, arrays):
    arrays["rpn.head.cls_logits.bias"] = np.array(["a", "b", "c"])
    assert rejection(model, arrays) == "rpn.head.cls_logits.bias is <U1, not numbers"


def test_a_duplicate_name(model, arrays):
    arrays["module.rpn.head.cls_logits.bias"] = arrays["rpn.head.cls_logits.bias"]
    assert rejection(model, arrays) == "holds rpn.head.cls_logits.bias twice"


def test_a_backbone_other_than_resnet(arrays):
    model = MaskRCNN(2, "simple_cnn", fpn_channels=16, box_stage={"width": 8}, mask_stage={"width": 8})
    reason = "torchvision's weights are for a ResNet or a MobileNetV2; the model's backbone is simple_cnn"
    assert rejection(model, arrays) == reason


def test_a_missing_file(model, tmp_path):
    with pytest.raises(ValueError, match=r"none\.pth: no such file"):
        weights.load(model, tmp_path / "none.pth", "torchvision")


def test_negative_variances_are_rejected(model, arrays):
    arrays["backbone.body.bn1.running_var"] = arrays["backbone.body.bn1.running_var"] - 9
    assert rejection(model, arrays) == "backbone.body.bn1.running_var holds negative variances"


def test_a_classifier_for_norms_without_epsilon_is_rejected(names):
    backbone = {"name": "resnet18", "width": 16, "norm": "frozen_batch", "norm_epsilon": 0.0}
    model = MaskRCNN(3, backbone, fpn_channels=64, box_stage={"width": 256}, mask_stage={"width": 64})
    arrays = {"conv1.weight": np.zeros((16, 3, 7, 7), "float32")}
    assert rejection(model, arrays).startswith("a classifier's norms need norm_epsilon=1e-5")
