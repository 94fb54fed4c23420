"""Models with RoIPool, RoIWarp and maxima: training steps, files and export."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.layers import RoIPool

OPTIONS = {
    "pool": {"pooling": "pool"},
    "warp": {"pooling": "warp", "sampling_ratio": 1},
    "max": {"reduce": "max", "aligned": True},
}


def one_step(model, batch, **options):
    """Compiles the model, takes a step, and returns its losses and whether the backbone's weights moved."""
    before = [keras.ops.convert_to_numpy(weight) for weight in model.backbone.trainable_weights]
    model.compile(keras.optimizers.SGD(0.01), **options)
    logs = model.train_on_batch(*batch, return_dict=True)
    after = [keras.ops.convert_to_numpy(weight) for weight in model.backbone.trainable_weights]
    return logs, any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_training_step(tiny, batch, name):
    model = tiny(regions=OPTIONS[name])
    logs, moved = one_step(model, batch)
    assert all(np.isfinite(value) for value in logs.values()) and logs["mask_loss"] > 0 and moved


@pytest.mark.slow
def test_compiled_step(tiny, batch):
    model = tiny(regions={"pooling": "pool"})
    logs, moved = one_step(model, batch, jit_compile=True)
    assert model.jit_compile is True
    assert all(np.isfinite(value) for value in logs.values()) and logs["mask_loss"] > 0 and moved


@pytest.mark.slow
def test_files_and_export_keep_the_pooling(tiny, batch, tmp_path):
    model = tiny(regions={"pooling": "pool"}, detection={"score_threshold": 0.0, "max_detections": 5})
    images = batch[0]["images"].astype("uint8")
    wanted = model.detect(images[0])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.regions == model.regions and type(again.mask_head.align) is RoIPool
    for name, values in again.detect(images[0]).items():
        np.testing.assert_array_equal(values, wanted[name])
    assert len(wanted["boxes"])
    model.export(str(tmp_path / "saved"))
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](images=tf.constant(images[:1]))
    count = int(served["num_detections"][0])
    np.testing.assert_allclose(np.sort(served["detection_scores"][0, :count]), np.sort(wanted["scores"]), atol=1e-4)
