"""Weights of matterport: folding, and comparison with a reference network."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_maskrcnn import weights
from keras_maskrcnn.models import MaskRCNN
from keras_maskrcnn.ops import anchors as anchor_ops
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.roi import assign_levels
from keras_maskrcnn.weights import matterport, rows
from keras_maskrcnn.weights.assign import fill

CLASSES = 5
WIDTHS = {"width": 8, "channels": 16, "rpn_width": 24, "box_width": 32, "mask_width": 12}
FILE = "mask_rcnn.h5"


def ours(depth, num_classes=CLASSES, mask_norm=None):
    backbone = {
        "name": f"resnet{depth}",
        "norm": "frozen_batch",
        "norm_epsilon": 1e-3,
        "stride_in_1x1": True,
        "stem_pool": "same",
        "width": WIDTHS["width"],
    }
    return MaskRCNN(
        num_classes,
        backbone,
        fpn_channels=WIDTHS["channels"],
        rpn_stage={"channels": WIDTHS["rpn_width"]},
        box_stage={"width": WIDTHS["box_width"]},
        mask_stage={"width": WIDTHS["mask_width"], "norm": mask_norm},
    )


@pytest.fixture(scope="module")
def theirs(reference):
    """matterport's network with a ResNet-101, all widths small."""
    network = reference.network(101, CLASSES + 1, **WIDTHS)
    reference.draw(network)
    return network


@pytest.fixture(scope="module")
def arrays(reference, theirs):
    return reference.arrays(theirs)


@pytest.fixture(scope="module")
def model():
    return ours(101)


@pytest.fixture(scope="module")
def report(model, arrays):
    return fill(model, arrays, "matterport", FILE)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    shapes = (2, 64, 64, 3), (2, 7, 7, WIDTHS["channels"]), (2, 14, 14, WIDTHS["channels"])
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


@pytest.fixture(scope="module")
def expected(theirs, inputs):
    return {name: np.array(x) for name, x in theirs(inputs, training=False).items()}


@pytest.fixture(scope="module")
def features(model, report, inputs):
    return model.backbone(inputs[0], training=False)


def close(got, want):
    scale = np.abs(want).max()
    assert scale > 0.05  # the values are not all near 0
    np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=1e-4 * max(1.0, scale))


def refined(box, deltas):
    """matterport's boxes from deltas (dy, dx, log dh, log dw) in units of 0.1, 0.1, 0.2, 0.2."""
    dy, dx, dh, dw = np.moveaxis(deltas * [0.1, 0.1, 0.2, 0.2], -1, 0)
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    x, y = (x1 + x2) / 2 + dx * width, (y1 + y2) / 2 + dy * height
    half_width, half_height = width * np.exp(dw) / 2, height * np.exp(dh) / 2
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def test_every_array_is_used_and_every_variable_assigned_once(model, arrays, report):
    table = list(matterport.name_map(model, set(map(matterport.plain, arrays))))
    filled = [id(row.variable) for row in table]
    assert len(set(filled)) == len(filled) == report.loaded
    assert set(filled) == {id(variable) for part in model.parts().values() for variable in part.weights}
    assert {name for row in table for name in row.sources} == set(map(matterport.plain, arrays))
    assert report.reinitialised == report.unused == []


def test_names_equal_the_published_file(arrays):
    names = set(map(matterport.plain, arrays))
    published = "conv1/kernel bn_conv1/moving_mean res2a_branch1/bias res4w_branch2c/kernel bn4w_branch2c/gamma"
    published += " res5c_branch2b/bias fpn_c2p2/kernel fpn_p5/bias rpn_class_raw/kernel mrcnn_class_bn2/beta"
    assert names >= set(published.split())
    # Backbone, pyramid, RPN, convolutions and norms of the boxes, their outputs, the same of the masks.
    assert len(names) == 104 * 6 + 8 * 2 + 3 * 2 + 2 * 6 + 2 * 2 + 4 * 6 + 2 * 2


def test_plain_names():
    assert matterport.plain("mrcnn_mask_conv1/kernel:0") == "mrcnn_mask_conv1/kernel"
    assert matterport.plain("res2a_branch2a_1/kernel:0") == "res2a_branch2a/kernel"
    assert matterport.plain("bn_conv1/moving_mean:0") == "bn_conv1/moving_mean"


@pytest.mark.parametrize("level", ["C2", "C3", "C4", "C5"])
def test_backbone(features, expected, level):
    close(features[level], expected[level])


@pytest.mark.parametrize("level", ["P2", "P3", "P4", "P5", "P6"])
def test_pyramid(model, features, expected, level):
    close(model.fpn(features)[level], expected[level])


def test_rpn(model, features, expected):
    levels = list(model.fpn(features).values())
    logits, deltas = (np.concatenate([np.asarray(x) for x in outputs], axis=1) for outputs in model.rpn(levels))
    close(ops.sigmoid(logits), np.asarray(ops.softmax(expected["scores"]))[..., 1])
    anchor = np.array([10.0, 20.0, 50.0, 100.0], "float32")
    close(box_ops.decode(deltas, anchor), refined(anchor, expected["anchor_deltas"]))


def test_box_head(model, report, inputs, expected):
    logits, deltas = model.box_head(inputs[1])
    close(ops.softmax(logits), expected["classes"])
    box = np.array([10.0, 20.0, 50.0, 100.0], "float32")
    close(box_ops.decode(deltas, box, model.box_head.stage.delta_weights), refined(box, expected["deltas"]))


@pytest.mark.parametrize("label", [0, 1, CLASSES])
def test_mask_head(model, report, inputs, expected, label):
    masks = ops.sigmoid(model.mask_head(inputs[2], np.full(2, label, "int32")))
    close(masks, expected["masks"][..., label])


def test_anchors():
    """mrcnn/utils.py: heights are scale / √ratio, widths scale · √ratio, for ratios 0.5, 1, 2; around (0, 0) first."""
    ratios = np.array([0.5, 1, 2])
    heights, widths = 32 / np.sqrt(ratios), 32 * np.sqrt(ratios)
    expected = np.stack([-widths, -heights, widths, heights], axis=-1) / 2
    np.testing.assert_allclose(anchor_ops.cell_anchors((32,), (2.0, 1.0, 0.5)), expected, rtol=1e-6)


def test_levels_by_rounding():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 500, (500, 2)), np.exp(rng.uniform(1, 7, (500, 2)))
    boxes = np.concatenate([corner, corner + size], axis=-1).astype("float32")
    wanted = np.clip(4 + np.round(np.log2(np.sqrt(size.prod(axis=-1)) / 224)), 2, 5)
    np.testing.assert_array_equal(assign_levels(boxes, canonical_size=224 / 2**0.5), wanted)


def test_deconvolution_is_not_mirrored():
    """A Keras transposed convolution of one cell equals its kernel, not mirrored."""
    layer = keras.layers.Conv2DTranspose(1, 2, 2, use_bias=False)
    layer.build((None, 1, 1, 1))
    kernel = np.arange(1, 5, dtype="float32").reshape(2, 2, 1, 1)
    layer.kernel.assign(kernel)
    shown = np.asarray(layer(np.ones((1, 1, 1, 1), "float32")))[0, :, :, 0]
    np.testing.assert_array_equal(shown, rows.keras_deconvolution(kernel)[0, :, :, 0])


def test_folding_by_hand():
    gamma, beta, mean, variance = (np.array([x]) for x in (3.0, 7.0, 5.0, 4.0 - 1e-3))
    # (2x + 1 - 5) / 2 * 3 + 7 = 3x + 1
    np.testing.assert_allclose(rows.folded_kernel(np.array([[2.0]]), gamma, variance), [[3.0]])
    np.testing.assert_allclose(rows.folded_bias(np.array([1.0]), gamma, beta, mean, variance), [1.0])
    np.testing.assert_array_equal(rows.shifted_mean(np.array([5.0]), np.array([1.0])), [4.0])


def test_order_of_scores_and_deltas_by_hand():
    np.testing.assert_array_equal(rows.object_logit(np.array([1.0, 5.0, 2.0, -1.0])), [4.0, -3.0])
    two = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]])
    np.testing.assert_array_equal(rows.reordered_deltas(two), [[2, 1, 4, 3, 6, 5, 8, 7]])
    scaled = [[0.2, 0.1, 0.8, 0.6, 0.6, 0.5, 1.6, 1.4]]
    np.testing.assert_allclose(rows.anchor_deltas(two), scaled, rtol=1e-6)


def test_resnet50_and_another_class_count(arrays, capsys):
    """A ResNet-50 is a ResNet-101 without the blocks res4g to res4w."""
    report = fill(ours(50, num_classes=2), shallower(arrays), "matterport", FILE)
    assert report.reinitialised == ["box_head.classes", "box_head.deltas", "mask_head.logits"]
    assert "num_classes is 5 in the file, 2 in the model" in capsys.readouterr().out


def shallower(arrays):
    return {name: array for name, array in arrays.items() if not re.match("(res|bn)4[g-w]_", name)}


def test_norms_in_our_heads_are_rejected(arrays):
    with pytest.raises(ValueError, match=r"^mask_rcnn\.h5: .* unexpected: mrcnn_mask_conv1/bias, [^\n]*$"):
        fill(ours(50, mask_norm="frozen_batch"), shallower(arrays), "matterport", FILE)


def test_a_negative_variance_is_rejected(model, arrays):
    name = "mrcnn_mask_bn1/moving_variance:0"
    with pytest.raises(ValueError, match=r"mrcnn_mask_bn1/moving_variance: the converted values are not finite"):
        fill(model, {**arrays, name: arrays[name] - 9}, "matterport", FILE)


def test_a_file_of_keras_2(tmp_path, model, arrays):
    """Layers are groups; those of the RPN are inside the group of its model."""
    h5py = pytest.importorskip("h5py")
    groups = {}
    for name in arrays:
        layer = name.partition("/")[0]
        groups.setdefault("rpn_model" if layer.startswith("rpn_") else layer, []).append(name)
    with h5py.File(tmp_path / FILE, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in groups]
        for layer, weights_of_layer in groups.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights_of_layer]
            for name in weights_of_layer:
                group[name] = arrays[name]
    assert weights.load(model, tmp_path / FILE, "matterport").unused == []
    np.testing.assert_array_equal(model.fpn.lateral["C3"].bias, arrays["fpn_c3p3/bias:0"])
