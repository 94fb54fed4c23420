"""Files of earlier versions, written by `tests/golden/make_keras_file.py`."""

import pathlib

import keras
import numpy as np

import keras_maskrcnn
from keras_maskrcnn.models import compatibility

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def test_file_of_version_0_1_0_loads_and_detects_the_same(batch):
    model = keras.saving.load_model(GOLDEN / "model_0.1.0.keras")
    assert isinstance(model, keras_maskrcnn.MaskRCNN)
    stored = np.load(GOLDEN / "model_0.1.0.npz")
    found = model.detect(stored["image"], score_threshold=0.2)
    for name in ("boxes", "labels", "scores", "proposals", "masks"):
        np.testing.assert_allclose(found[name], stored[name], atol=1e-4, err_msg=name)
    assert len(model.detect(stored["image"])["scores"]) == len(stored["shown/scores"])  # at the default of 0.5


def test_its_options_optimizer_and_training_state_are_kept():
    model = keras.saving.load_model(GOLDEN / "model_0.1.0.keras")
    config = model.get_config()
    assert int(model.optimizer.iterations) == 2 and model.loss_weights == {"box_loss": 2.0}
    assert any(np.abs(v).max() > 0 for v in model.optimizer.variables[2:])
    assert config["box_sampling"] == {
        "size": 16,
        "positive_fraction": 0.25,
        "high": 0.5,
        "low": 0.5,
        "crowd_cover": 0.5,
        "keep_best": True,
        "add_ground_truth": False,
    }
    assert config["detection"]["score_threshold"] is None and config["detection"]["max_detections"] == 30
    assert config["heads"] == [] and config["rpn_stage"]["depth"] == 2 and config["mask_stage"]["pool"] == 5


def test_configs_of_this_version_are_unchanged(tiny):
    config = tiny(detection={"score_threshold": 0.05}).get_config()
    assert compatibility.current(config) == config


def test_only_the_first_variable_of_skipped_images_is_dropped():
    skipped, own = np.full(64, -1, "int32"), np.ones(64, "float32")
    assert compatibility.current_variables({"0": skipped, "1": own})["0"] is own
    assert compatibility.current_variables({"0": own}) == {"0": own}
    assert compatibility.current_variables({}) == {}
