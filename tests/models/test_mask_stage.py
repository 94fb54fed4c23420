"""A whole model with each choice of the mask head, and what the mask head computes at test time."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.region_head import flat
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.models import presets

STAGES = {
    "softmax": {"loss": "softmax"},
    "class-agnostic": {"class_agnostic": True},
    "mlp": {"kind": "mlp"},
    "mlp of one mask with softmax": {"kind": "mlp", "hidden": 3, "loss": "softmax", "class_agnostic": True},
}
every_stage = pytest.mark.parametrize("stage", STAGES)


@pytest.fixture
def chosen(tiny):
    """Function from a key of `STAGES` and further arguments to a model."""

    def make(stage, **overrides):
        options = {"width": 8, "depth": 1, "pool": 7, **STAGES[stage]}
        return tiny(mask_stage=options, **overrides)

    return make


def numpy(found):
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}


@every_stage
def test_a_step_is_finite_and_the_saved_model_is_the_same(chosen, batch, tmp_path, stage):
    model = chosen(stage)
    model.compile(keras.optimizers.AdamW(1e-3), run_eagerly=True)
    before = [np.array(w) for w in model.mask_head.weights]
    logs = model.train_on_batch(*batch, return_dict=True)
    assert np.isfinite(logs["loss"]) and logs["mask_loss"] > 0
    assert all(np.abs(np.array(w) - b).max() > 0 for w, b in zip(model.mask_head.weights, before, strict=True))
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    assert copy.get_config() == model.get_config()
    found, again = numpy(model(batch[0])), numpy(copy(batch[0]))
    assert found["valid"].any() and found["masks"].shape[2:] == (14, 14)
    assert (found["masks"] >= 0).all() and (found["masks"] <= 1).all()
    for name in found:
        np.testing.assert_array_equal(found[name], again[name])


@pytest.mark.parametrize("stage", ["softmax", "mlp"])
def test_without_objects_there_is_no_mask_loss(chosen, batch, stage):
    x, y = batch
    terms = chosen(stage)({**x, **y, "valid": np.zeros_like(y["valid"])}, training=True)
    assert float(terms["mask_loss"]) == 0 and all(np.isfinite(float(value)) for value in terms.values())


@every_stage
def test_other_classes_keep_what_does_not_depend_on_them(chosen, tmp_path, capsys, stage):
    model = chosen(stage)
    model.save_preset(tmp_path / "preset")
    other = MaskRCNN.from_preset(tmp_path / "preset", num_classes=5)
    reset = ["box_head.classes", "box_head.deltas"]
    if not model.mask_head.stage.class_agnostic:
        reset.append("mask_head.logits")
    assert f"reinitialised {', '.join(reset)}" in capsys.readouterr().out.replace("\n", "")
    kept = [w for w in model.mask_head.weights if "logits" not in w.path or len(reset) == 2]
    theirs = [w for w in other.mask_head.weights if "logits" not in w.path or len(reset) == 2]
    assert kept
    for one, two in zip(kept, theirs, strict=True):
        np.testing.assert_array_equal(one, two)


def test_weights_of_another_mask_loss_are_announced(tiny, tmp_path, capsys):
    tiny().save_preset(tmp_path / "preset")
    MaskRCNN.from_preset(tmp_path / "preset")
    assert "masks" not in capsys.readouterr().out
    MaskRCNN.from_preset(tmp_path / "preset", mask_stage={"loss": "softmax"})
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "its masks were trained with loss='sigmoid', the model's have 'softmax'" in printed


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["softmax", "mlp"])
def test_the_compiled_step_gives_the_same_losses(chosen, batch, stage):
    everything = {"size": 5000, "positive_fraction": 1.0}  # no random sample
    model = chosen(stage, rpn_sampling=everything, box_sampling=everything)
    expected = numpy(model({**batch[0], **batch[1]}, training=True))
    model.compile(keras.optimizers.SGD(1e-3), jit_compile=True)
    logs = model.train_on_batch(*batch, return_dict=True)
    for name in model.loss_names:
        assert logs[name] == pytest.approx(float(expected[name]), rel=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["softmax", "mlp of one mask with softmax"])
def test_the_saved_model_finds_the_same(chosen, shapes, tmp_path, stage):
    model = chosen(stage)
    model.export(tmp_path / "export")
    image, limits = shapes[0]["image"], {"score_threshold": 0.1, "max_detections": 5}
    found, served = model.detect(image, **limits), SavedModel(tmp_path / "export").detect(image, **limits)
    assert len(found["boxes"]) == len(served["boxes"]) > 0
    np.testing.assert_allclose(served["boxes"], found["boxes"], atol=1e-2)
    assert (served["masks"] != found["masks"]).mean() < 1e-3


# Test time ----------------------------------------------------------------------------------------------------------


def test_masks_are_computed_for_the_best_boxes_after_nms(tiny, batch):
    assert Detection().max_detections == 100  # as in section 3.1
    model = tiny(detection={"max_detections": 5})
    call, rows = model.mask_head.call, []

    def counted(crops, labels, training=False, valid=None):
        rows.append(crops.shape[0])
        return call(crops, labels, training, valid)

    model.mask_head.call = counted
    found = model(batch[0])
    assert rows == [2 * 5]  # of 2 · 20 proposals
    # The masks lie in the refined boxes and are those of the predicted classes.
    boxes, labels = flat(found["boxes"]), flat(found["labels"])
    pyramid = model.features(batch[0]["images"], batch[0]["sizes"])
    levels = [pyramid[level] for level in model.region_levels]
    crops = model.mask_head.align.align_rows(levels, boxes, np.repeat([0, 1], 5).astype("int32"))
    expected = ops.convert_to_numpy(ops.sigmoid(call(crops, labels)))
    valid = ops.convert_to_numpy(found["valid"]).ravel()
    assert valid.any()
    np.testing.assert_allclose(ops.convert_to_numpy(flat(found["masks"]))[valid], expected[valid], atol=1e-5)


def test_three_hundred_and_thousand_proposals_are_one_option(tiny, batch):
    # The canvas has 1023 anchors, and no overlap exceeds 1.
    few, many = (tiny(proposals={"pre_nms": 1000, "post_nms": n, "nms_iou": 1.0}) for n in (300, 1000))
    changed = presets.overridden(few.get_config(), {"proposals": {"post_nms": 1000}})
    assert changed == many.get_config() != few.get_config()
    many.set_weights(few.get_weights())
    x = batch[0]
    found = []
    for model, count in ((few, 300), (many, 1000)):
        pyramid = model.features(x["images"], x["sizes"])
        proposed, _ = model.rpn.first_stage(pyramid, (64, 64), ops.convert_to_tensor(x["sizes"]))
        assert proposed.boxes.shape == (2, count, 4) and np.array(proposed.valid).all()
        found.append(np.array(proposed.boxes))
        detections = numpy(model(x))
        assert detections["masks"].shape == (2, 100, 28, 28) and detections["valid"].any()
    np.testing.assert_array_equal(found[0], found[1][:, :300])
