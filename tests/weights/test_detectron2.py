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
    """R50-FPN of the model zoo, or with another neck, at a quarter of its width."""
    backbone = {"name": "resnet50", "norm": "frozen_batch", "stride_in_1x1": True, "width": 16}
    stages = {"box_stage": {"width": 256}, "mask_stage": {"width": 64}}
    return MaskRCNN(num_classes, backbone, fpn_channels=64, **{**stages, **options})


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


@pytest.mark.parametrize("neck", ["c4", "dc5"])
def test_models_without_a_pyramid(names, neck):
    model, arrays = thin(neck=neck), names.drawn(names.narrowed(names.detectron2_shapes(neck=neck)))
    table = list(detectron2.name_map(model, arrays))
    filled = [id(row.variable) for row in table]
    assert len(set(filled)) == len(filled)
    assert set(filled) == {id(variable) for part in model.parts().values() for variable in part.weights}
    report = fill(model, arrays, "detectron2", "model_final.pkl")
    assert report.loaded == len(table) and report.reinitialised == []
    assert report.unused == ["pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors.0"]
    first = "roi_heads" if neck == "c4" else "backbone"
    kernel = model.backbone.get_layer("stage4_block1_2_conv").kernel
    np.testing.assert_array_equal(kernel, arrays[f"{first}.res5.0.conv2.weight"].transpose(2, 3, 1, 0))


def test_anchors_of_a_location_are_ordered_by_ratio_then_size(names):
    # detectron2: for each of five sizes the three ratios. Output 3·2 + 1 is the third size with the second ratio.
    model, arrays = thin(neck="c4"), names.drawn(names.narrowed(names.detectron2_shapes(neck="c4")))
    fill(model, arrays, "detectron2", "model_final.pkl")
    theirs = arrays["proposal_generator.rpn_head.anchor_deltas.weight"]
    ours = np.array(model.rpn.deltas.kernel)[0, 0]
    third = 1 * 5 + 2
    np.testing.assert_array_equal(ours[:, 4 * third : 4 * third + 4], theirs[4 * 7 : 4 * 8, :, 0, 0].T)
    assert float(model.rpn.objectness.bias[third]) == arrays["proposal_generator.rpn_head.objectness_logits.bias"][7]
    box = model.rpn.anchors.boxes((16, 16), (16,))[0][third]
    np.testing.assert_allclose(box[2:] - box[:2], [128, 128], rtol=1e-6)


def test_the_head_of_c4_is_the_fifth_stage_and_a_mean(names):
    model, arrays = thin(neck="c4"), names.drawn(names.narrowed(names.detectron2_shapes(neck="c4")))
    fill(model, arrays, "detectron2", "model_final.pkl")
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
    backbone = {name.replace("backbone.", "backbone.bottom_up."): array for name, array in arrays.items()}
    backbone |= {name.replace("roi_heads.res5", "backbone.bottom_up.res5"): array for name, array in arrays.items()}
    expected = their_backbone(images[..., ::-1], backbone)
    c4 = model.maps(images)["C4"]
    c5 = model.maps.trunk(c4)
    for ours, theirs in ((c4, expected["C4"]), (c5, expected["C5"])):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * max(1, np.abs(theirs).max()))
    scores, _ = model.box_head(c5)
    kernel, bias = (arrays[f"roi_heads.box_predictor.cls_score.{kind}"] for kind in ("weight", "bias"))
    np.testing.assert_allclose(scores[:, 1:], (expected["C5"].mean((1, 2)) @ kernel.T + bias)[:, :80], atol=1e-3)


def test_faster_rcnn_and_another_class_count(arrays, capsys):
    model = thin(num_classes=4)
    file = {name: array for name, array in arrays.items() if "mask_head" not in name}
    assert fill(model, file, "detectron2", "f.pkl").reinitialised == [
        "box_head.classes",
        "box_head.deltas",
        "mask_head",
    ]
    assert "num_classes is 80 in the file, 4 in the model" in capsys.readouterr().out


# Cascade R-CNN ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cascade():
    return thin(cascade={})


@pytest.fixture(scope="module")
def cascade_arrays(names):
    return names.drawn(names.narrowed(names.detectron2_shapes(box_stages=3)))


def test_every_array_of_a_cascade_is_used_and_every_variable_assigned_once(cascade, cascade_arrays):
    table = list(detectron2.name_map(cascade, cascade_arrays))
    report = fill(cascade, cascade_arrays, "detectron2", "model_final_480dd8.pkl")
    filled = [id(row.variable) for row in table]
    # Two more stages than a Mask R-CNN, each with four layers of a kernel and a bias.
    assert len(set(filled)) == len(filled) == report.loaded == 307 + 2 * 4 * 2
    assert set(filled) == {id(variable) for part in cascade.parts().values() for variable in part.weights}
    assert {name for row in table for name in row.sources} == set(cascade_arrays) - set(report.unused)
    assert report.reinitialised == [] and len(report.unused) == 7
    for i, stage in enumerate(cascade.box_head.stages):
        predictor = f"roi_heads.box_predictor.{i}"
        scores, deltas = (cascade_arrays[f"{predictor}.{name}.weight"] for name in ("cls_score", "bbox_pred"))
        np.testing.assert_array_equal(stage.classes.kernel[:, 0], scores[80])
        np.testing.assert_array_equal(stage.classes.kernel[:, 1:], scores[:80].T)
        np.testing.assert_array_equal(stage.deltas.kernel, deltas.T)
        np.testing.assert_array_equal(stage.hidden[1].bias, cascade_arrays[f"roi_heads.box_head.{i}.fc2.bias"])


def test_a_cascade_of_another_class_count(cascade_arrays, capsys):
    model = thin(num_classes=4, cascade={})
    report = fill(model, cascade_arrays, "detectron2", "f.pkl")
    layers = [f"box_head.stages.{i}.classes" for i in range(3)]
    assert report.reinitialised == [*layers, "mask_head.logits"]
    assert "80 in the file, 4 in the model: reinitialised box_head.stages.0.classes" in capsys.readouterr().out
    assert not np.any(model.box_head.stages[2].classes.bias)
    np.testing.assert_array_equal(
        model.box_head.stages[2].deltas.bias, cascade_arrays["roi_heads.box_predictor.2.bbox_pred.bias"]
    )


def test_a_cascade_does_not_fit_a_single_box_stage(model, cascade_arrays):
    with pytest.raises(ValueError, match=r"missing: roi_heads\.box_head\.fc1\.weight"):
        fill(model, cascade_arrays, "detectron2", "f.pkl")
