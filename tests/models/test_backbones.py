"""A detector on the backbones with grouped and depthwise convolutions: compiled step, files, SavedModel."""

import keras
import numpy as np
import pytest

from keras_maskrcnn.inference.saved_model import SavedModel

BACKBONES = {
    "resnext": {"name": "resnext50_32x4d", "width": 16, "groups": 4, "width_per_group": 16, "norm": "frozen_batch"},
    "mobilenet_v2": {"name": "mobilenet_v2", "width": 8, "last_conv": False, "norm": "frozen_batch"},
}
# keras.random draws other numbers under XLA; samplers that take every candidate are deterministic.
EVERYTHING = {"size": 5000, "positive_fraction": 1.0}
every_backbone = pytest.mark.parametrize("backbone", BACKBONES.values(), ids=list(BACKBONES))


@every_backbone
def test_a_file_has_the_same_detections(tiny, batch, tmp_path, backbone):
    model = tiny(backbone=backbone)
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    assert copy.get_config() == model.get_config()
    for a, b in zip(model(batch[0]).values(), copy(batch[0]).values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@every_backbone
def test_the_compiled_step_has_the_losses_of_the_plain_one(tiny, batch, backbone):
    logs = []
    for jit_compile in (False, True):
        model = tiny(backbone=backbone, rpn_sampling=EVERYTHING, box_sampling=EVERYTHING)
        model.compile(keras.optimizers.SGD(1e-3), jit_compile=jit_compile)
        logs.append(model.train_on_batch(*batch, return_dict=True))
    assert np.isfinite(logs[0]["loss"]) and logs[1] == pytest.approx(logs[0], rel=2e-3)


@pytest.mark.slow
@every_backbone
def test_the_saved_model_has_the_same_detections(tiny, shapes, tmp_path, backbone):
    model = tiny(backbone=backbone)
    model.export(tmp_path / "exported")
    image = shapes[0]["image"]
    expected, found = (
        detector.detect(image, score_threshold=0.0) for detector in (model, SavedModel(tmp_path / "exported"))
    )
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.05)
