"""`mask_stage=None`: the model without its mask head, on batches without masks."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN, data, evaluation, training
from keras_maskrcnn.cli import main
from keras_maskrcnn.inference.saved_model import SavedModel

LOSSES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")


@pytest.fixture(scope="module")
def boxes_only(shapes):
    """Batches of one size without masks."""
    return data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=None)


@pytest.fixture(scope="module")
def trained(tiny, shapes, boxes_only, tmp_path_factory):
    """(model, log, folder) after one epoch under XLA with COCO scores, TensorBoard and pictures."""
    folder = tmp_path_factory.mktemp("faster")
    model = tiny(mask_stage=None, class_names=shapes.class_names)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    scores = training.CocoEval(shapes, log_dir=folder / "logs", images=1, image_threshold=0.0)
    log = model.fit(boxes_only, epochs=1, verbose=0, callbacks=[scores]).history
    model.save(folder / "model.keras")
    return model, log, folder


def test_the_default_is_a_mask_head():
    default = inspect.signature(MaskRCNN).parameters["mask_stage"].default
    small = {"backbone": {"name": "resnet10", "width": 4}, "fpn_channels": 4, "box_stage": {"width": 4}}
    models = [MaskRCNN(1, **small, **stage) for stage in ({}, {"mask_stage": {}}, {"mask_stage": default})]
    assert all(model.get_config()["mask_stage"] == default.asdict() for model in models)


def test_neither_losses_nor_fields_nor_outputs_are_those_of_masks(tiny, boxes_only):
    model = tiny(mask_stage=None)
    assert (
        model.loss_names == LOSSES
        and model.fields == ("boxes", "labels", "crowd", "valid")
        and list(model.parts())[-1] == "box_head"
    )
    x, y = next(iter(boxes_only))
    assert set(y) == {"boxes", "labels", "crowd", "valid"}
    assert set(model({**x, **y})) == {*LOSSES, *model.health_names}
    assert set(model(x)) == {"boxes", "labels", "scores", "valid", "proposals"}


def test_every_trainable_weight_gets_a_gradient(tiny, boxes_only):
    everything = {"size": 5000, "positive_fraction": 1.0}
    model = tiny(mask_stage=None, rpn_sampling=everything, box_sampling=everything)
    x, y = next(iter(boxes_only))
    with tf.GradientTape() as tape:
        total = sum(model({**x, **y}, training=True)[name] for name in LOSSES)
    for weight, gradient in zip(model.trainable_weights, tape.gradient(total, model.trainable_weights), strict=True):
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


@pytest.mark.parametrize("empty", [[True, True], [True, False]])
def test_images_without_objects(tiny, boxes_only, empty):
    x, y = next(iter(boxes_only))
    valid = y["valid"] & ~np.array(empty)[:, None]
    terms = tiny(mask_stage=None)({**x, **y, "valid": valid}, training=True)
    assert all(np.isfinite(value) for value in terms.values())


def test_scores_and_logs_are_those_of_boxes(trained, shapes):
    model, log, folder = trained
    assert {"val_bbox_AP", *LOSSES} <= set(log) and not [name for name in log if "segm" in name or "mask" in name]
    assert list((folder / "logs" / "pictures").iterdir())
    figures = evaluation.explain(model, shapes, limit=2)
    assert figures["kind"] == "bbox" and "dsb_score" not in figures


def test_files_and_export_have_no_masks(trained, shapes, tmp_path):
    model, _, folder = trained
    loaded = keras.saving.load_model(folder / "model.keras")
    assert loaded.get_config() == model.get_config() and loaded.mask_head is None
    loaded.export(tmp_path / "saved")
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    assert "detection_boxes" in served.structured_outputs and "detection_masks" not in served.structured_outputs
    image = shapes[0]["image"]
    found = model.detect(image, score_threshold=0.01)
    assert len(found["scores"]) and set(found) == {"boxes", "labels", "scores", "proposals"}
    again = SavedModel(tmp_path / "saved").detect(image, score_threshold=0.01)
    np.testing.assert_allclose(again["boxes"], found["boxes"], atol=1e-3)


def test_predict_draws_boxes_and_refuses_id_images(trained, shapes, tmp_path, capsys):
    from PIL import Image

    *_, folder = trained
    Image.fromarray(shapes[0]["image"]).save(tmp_path / "a.png")
    command = ["predict", "--model", str(folder / "model.keras"), str(tmp_path / "a.png"), "--score", "0"]
    command += ["--output", str(tmp_path / "out"), "--json", str(tmp_path / "found.json")]
    assert main(command) == 0 and (tmp_path / "out" / "a.png").is_file()
    results = json.loads((tmp_path / "found.json").read_text())
    assert results and all("bbox" in result and "segmentation" not in result for result in results)
    assert main([*command, "--ids"]) == 2
    assert "--ids needs masks, and the model predicts none" in capsys.readouterr().err
