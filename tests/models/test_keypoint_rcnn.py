"""Keypoint R-CNN: boxes and keypoints, with masks or without, from training to files; see also `test_tasks`."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.cli import main
from keras_maskrcnn.heads.keypoint import KeypointHead

STAGE = {"pool": 7, "width": 8, "depth": 1}


def keypoint_head(**options):
    return KeypointHead(**{"stage": STAGE, "name": "keypoint_head", **options})


@pytest.fixture(scope="module")
def figures():
    return data.StickFigures(6, image_size=(64, 64), seed=5)


@pytest.fixture(scope="module")
def model(tiny):
    """Boxes, masks and keypoints, in eager mode."""
    made = tiny(heads=[keypoint_head()])
    made.compile("sgd", run_eagerly=True)
    return made


def test_losses_are_those_of_all_heads(model):
    assert model.loss_names[-2:] == ("mask_loss", "keypoint_loss")


@pytest.mark.slow
def test_saved_model_has_the_names_of_tensorflows_detection_models(model, figures, tmp_path):
    image = figures[0]["image"]
    model.export(tmp_path / "saved")
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](images=tf.constant(image[None]))
    found = model.detect(image, score_threshold=0.05)
    count = len(found["scores"])
    assert served["detection_keypoints"].shape[2:] == (17, 3) and count == int(served["num_detections"][0])
    np.testing.assert_allclose(served["detection_keypoint_scores"][0, :count], found["keypoint_scores"], atol=1e-4)
    relative = found["keypoints"][..., 1::-1] / 64  # y, x
    np.testing.assert_allclose(served["detection_keypoints"][0, :count, :, :2], relative, atol=1e-4)


def test_keypoints_alone_train_without_masks(tiny, figures):
    """One step on images of which one is empty."""
    model = tiny(mask_stage=None, heads=[keypoint_head()])
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    half = data.Subset(figures, [0]), data.StickFigures(1, (64, 64), figures=(0, 0))
    options = {"batch_size": 1, "max_instances": 4, "mask_size": None, "backend": "numpy"}
    parts = [next(iter(data.batches(one, (64, 64), **options))) for one in half]
    x, y = ({name: np.concatenate([part[i][name] for part in parts]) for name in parts[0][i]} for i in (0, 1))
    losses = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(losses["loss"]) and losses["keypoint_loss"] > 0 and "mask_loss" not in losses
    x, y = ({name: np.array(parts[1][i][name]) for name in parts[1][i]} for i in (0, 1))
    losses = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(losses["loss"]) and losses["keypoint_loss"] == 0
    assert set(model.detect(figures[0]["image"], 0.0)) >= {"boxes", "keypoints"}


def test_heads_may_be_serialised(tiny):
    heads = [keras.saving.serialize_keras_object(keypoint_head(num_keypoints=3, names=["a", "b", "c"]))]
    given = json.loads(json.dumps(heads))
    model = tiny(heads=given)
    assert model.heads[0].names == ("a", "b", "c") and model.heads[0].stage.width == 8
    assert given == json.loads(json.dumps(heads))  # not changed
    small = {key: heads[0][key] for key in ("class_name", "registered_name", "module")}
    small["config"] = {"name": "keypoint_head", "stage": STAGE}
    assert tiny(heads=[small], dtype="mixed_bfloat16").heads[0].compute_dtype == "bfloat16"
    with pytest.raises(ValueError, match="is no serialised layer: it needs class_name and config"):
        tiny(heads=[{"class_name": "KeypointHead"}])
    with pytest.raises(ValueError, match="must be a list of ObjectHeads"):
        tiny(heads=[keras.saving.serialize_keras_object(keras.layers.Dense(1, name="dense"))])


def test_data_that_does_not_fit_is_refused_in_one_line(tiny, figures, shapes):
    batches = data.batches(figures, (64, 64), 2, max_instances=4, mask_size=28)
    model = tiny(heads=[keypoint_head(num_keypoints=3)])
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="num_keypoints=3, but objects of the data have 17 keypoints"):
        model.fit(batches, verbose=0)
    model = tiny(heads=[keypoint_head()])
    model.compile("sgd")
    with pytest.raises(ValueError, match="the data has no keypoints, which mask_rcnn is trained with"):
        model.fit(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28), verbose=0)


def test_preset_is_the_published_configuration(narrow_presets):
    model = MaskRCNN.from_preset("keypoint_rcnn_resnet50_fpn")
    assert [head.name for head in model.object_heads()] == ["keypoint_head"] and model.num_classes == 1
    assert model.heads[0].num_keypoints == 17 and model.heads[0].stage.depth == 8


def test_predict_writes_and_draws_keypoints(model, figures, tmp_path):
    model.save(tmp_path / "model.keras")
    path = tmp_path / "image.png"
    Image.fromarray(figures[0]["image"]).save(path)
    command = ["predict", "--model", str(tmp_path / "model.keras"), "--output", str(tmp_path / "out"), str(path)]
    assert main([*command, "--json", str(tmp_path / "out.json"), "--score-threshold", "0.01"]) in (0, None)
    results = json.loads((tmp_path / "out.json").read_text())
    assert results and all(len(result["keypoints"]) == 51 for result in results)


@pytest.mark.slow
def test_keypoints_of_one_figure_are_learned(tiny):
    """The keypoint loss falls by half in 120 steps on one image."""
    figure = data.StickFigures(1, (64, 64), seed=3, figures=(1, 1), figure_size=(0.8, 0.8), blocks=0)
    model = tiny(mask_stage=None, heads=[keypoint_head(stage={"pool": 14, "width": 32, "depth": 1})])
    model.compile(keras.optimizers.Adam(3e-3), loss_weights={name: 0 for name in model.rpn.LOSSES})
    batches = data.batches(figure, (64, 64), 1, max_instances=2, mask_size=None, repeat=True)
    loss = model.fit(batches, epochs=2, steps_per_epoch=60, verbose=0).history["keypoint_loss"]
    assert loss[1] < 0.5 * loss[0]
