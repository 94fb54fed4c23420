"""`mask_stage=None`: the model without its mask head, on batches without masks; see also `test_tasks`."""

import inspect
import json

import keras
import pytest

from keras_maskrcnn import MaskRCNN, data, evaluation, training
from keras_maskrcnn.cli import main

LOSSES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")


@pytest.fixture(scope="module")
def boxes_only(shapes):
    """One batch without masks."""
    return data.batches(shapes[:2], (64, 64), 2, max_instances=6, mask_size=None)


@pytest.fixture(scope="module")
def trained(tiny, shapes, boxes_only, tmp_path_factory):
    """(model, log, folder) after one epoch with COCO scores, TensorBoard and pictures."""
    folder = tmp_path_factory.mktemp("faster")
    model = tiny(mask_stage=None, class_names=shapes.class_names)
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    scores = training.CocoEval(shapes[:2], log_dir=folder / "logs", images=1, image_threshold=0.0)
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


def test_scores_and_logs_are_those_of_boxes(trained, shapes):
    model, log, folder = trained
    assert {"val_bbox_AP", *LOSSES} <= set(log) and not [name for name in log if "segm" in name or "mask" in name]
    assert list((folder / "logs" / "pictures").iterdir())
    figures = evaluation.explain(model, shapes, limit=1)
    assert figures["kind"] == "bbox" and "dsb_score" not in figures


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
