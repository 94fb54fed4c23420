"""Weights of detectron2: names, B, G, R to R, G, B, background from last to first class."""

import pickle

import keras
import numpy as np
import pytest
from keras import ops

from keras_maskrcnn import weights
from keras_maskrcnn.models import MaskRCNN, presets
from keras_maskrcnn.weights import detectron2, rows
from keras_maskrcnn.weights.assign import fill

BLOCKS = (3, 4, 6, 3)


def thin(num_classes=80, **options):
    """R50-FPN of the model zoo at a quarter of its width."""
    backbone = {"name": "resnet50", "norm": "frozen_batch", "stride_in_1x1": True, "width": 16}
    stages = {"box_stage": {"width": 256}, "mask_stage": {"width": 64}}
    return MaskRCNN(num_classes, backbone, fpn_channels=64, **stages, **options)


@pytest.fixture(scope="module")
def model():
    return thin()


@pytest.fixture(scope="module")
def arrays(names):
    return names.drawn(names.narrowed(names.detectron2_shapes()))


@pytest.fixture(scope="module")
def report(model, arrays):
    return fill(model, arrays, "detectron2", "model_final.pkl")


def test_every_array_is_used_and_every_variable_assigned_once(model, arrays, report):
    table = list(detectron2.name_map(model, arrays))
    filled = [id(row.variable) for row in table]
    assert len(set(filled)) == len(filled) == report.loaded == 307
    assert set(filled) == {id(variable) for part in model.parts().values() for variable in part.weights}
    computed = ["pixel_mean", "pixel_std", *(f"proposal_generator.anchor_generator.cell_anchors.{i}" for i in range(5))]
    assert report.unused == computed
    assert {name for row in table for name in row.sources} == set(arrays) - set(computed)


def their_backbone(images, arrays):
    """{"C2": …, "C5": …} by detectron2's rules from `[B, H, W, (B, G, R)]`."""

    def conv(x, name, stride=1):
        kernel = arrays[f"backbone.bottom_up.{name}.weight"].transpose(2, 3, 1, 0)
        pad = kernel.shape[0] // 2
        x = ops.conv(np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))), kernel, stride, "valid")
        scale, offset, mean, variance = (
            arrays[f"backbone.bottom_up.{name}.norm.{kind}"]
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        return (np.asarray(x) - mean) / np.sqrt(variance + 1e-5) * scale + offset

    x = np.maximum(conv(images, "stem.conv1", 2), 0)
    x = np.asarray(ops.max_pool(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2))
    outputs = {}
    for stage, count in enumerate(BLOCKS, start=2):
        for i in range(count):
            block, stride = f"res{stage}.{i}", 2 if stage > 2 and i == 0 else 1
            y = np.maximum(conv(x, f"{block}.conv1", stride), 0)
            y = conv(np.maximum(conv(y, f"{block}.conv2"), 0), f"{block}.conv3")
            x = np.maximum(y + (conv(x, f"{block}.shortcut", stride) if i == 0 else x), 0)
        outputs[f"C{stage}"] = x
    return outputs


def test_features_of_images_in_rgb_order(model, arrays, report):
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    expected = their_backbone(images[..., ::-1], arrays)
    ours = model.backbone(images, training=False)
    for level, features in expected.items():
        scale = np.abs(features).max()
        assert scale > 0.05
        np.testing.assert_allclose(ours[level], features, rtol=0, atol=1e-4 * max(1, scale))


def test_classes_move_up_by_one_and_background_comes_first(model, arrays, report):
    def dense(x, name):
        return x @ arrays[f"roi_heads.{name}.weight"].T + arrays[f"roi_heads.{name}.bias"]

    regions = np.random.default_rng(0).normal(size=(3, 7, 7, 64)).astype("float32")
    hidden = np.maximum(dense(regions.transpose(0, 3, 1, 2).reshape(3, -1), "box_head.fc1"), 0)
    hidden = np.maximum(dense(hidden, "box_head.fc2"), 0)
    scores, deltas = dense(hidden, "box_predictor.cls_score"), dense(hidden, "box_predictor.bbox_pred")
    our_scores, our_deltas = model.box_head(regions)
    np.testing.assert_allclose(our_scores[:, 0], scores[:, 80], atol=1e-5)
    np.testing.assert_allclose(our_scores[:, 1:], scores[:, :80], atol=1e-5)
    np.testing.assert_array_equal(our_deltas[:, 0], np.zeros((3, 4)))
    np.testing.assert_allclose(our_deltas[:, 1:], deltas.reshape(3, 80, 4), atol=1e-5)


def test_masks_move_up_by_one(model, arrays, report):
    kernel = arrays["roi_heads.mask_head.predictor.weight"]
    ours = keras.ops.convert_to_numpy(model.mask_head.logits.kernel)
    np.testing.assert_array_equal(ours[0, 0, :, 0], np.zeros(64))
    np.testing.assert_array_equal(ours[0, 0, :, 1:], kernel[:, :, 0, 0].T)
    np.testing.assert_array_equal(model.mask_head.logits.bias[1:], arrays["roi_heads.mask_head.predictor.bias"])


def test_orders_by_hand():
    np.testing.assert_array_equal(rows.background_first(np.array([1, 2, 9])), [9, 1, 2])
    np.testing.assert_array_equal(rows.with_background(2)(np.array([1, 2, 3, 4])), [0, 0, 1, 2, 3, 4])
    kernel = np.arange(3.0).reshape(1, 3, 1, 1)  # one output of B, G, R
    np.testing.assert_array_equal(detectron2.stem_conv(kernel)[0, 0, :, 0], [2, 1, 0])


def test_panoptic_fpn(names, arrays):
    """The semantic head of panoptic_fpn_R_50_3x: names and shapes."""
    config = presets.read("panoptic_resnet50_fpn")["config"]
    semantic = keras.saving.deserialize_keras_object(config["heads"][0])
    semantic.connect((4, 8, 16, 32), 256)
    found = {row.sources[0]: row for row in semantic.published("detectron2", names.semantic_shapes())}
    assert set(found) == set(names.semantic_shapes())
    for name, shape in names.semantic_shapes().items():
        assert found[name].transform(np.zeros(shape)).shape == tuple(found[name].variable.shape), name
    narrow = {**config["heads"][0], "config": {**config["heads"][0]["config"], "stage": {"width": 32}}}
    model = thin(heads=[narrow])
    file = {**arrays, **names.drawn(names.narrowed(names.semantic_shapes()))}
    filled = fill(model, file, "detectron2", "model_final_c10459.pkl")
    assert filled.loaded == 307 + len(names.semantic_shapes()) and filled.reinitialised == []
    kernel = file["sem_seg_head.p4.2.weight"]
    ours = model.heads[0].stacks["p4_1"].convs[0].kernel
    np.testing.assert_array_equal(ours, kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(model.heads[0].logits.bias, file["sem_seg_head.predictor.bias"])
    assert "semantic_head" in fill(model, arrays, "detectron2", "f.pkl").reinitialised


def test_a_file_of_the_zoo(tmp_path, model, arrays):
    path = tmp_path / "model_final_a3ec72.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}, protocol=2))
    assert weights.load(model, path, "detectron2").loaded == 307


def test_faster_rcnn_and_another_class_count(arrays, capsys):
    model = thin(num_classes=4)
    file = {name: array for name, array in arrays.items() if "mask_head" not in name}
    assert fill(model, file, "detectron2", "f.pkl").reinitialised == [
        "box_head.classes",
        "box_head.deltas",
        "mask_head",
    ]
    assert "num_classes is 80 in the file, 4 in the model" in capsys.readouterr().out
