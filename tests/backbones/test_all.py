"""What all backbones with stages have in common: strides at odd sides, freezing, gradients, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.backbones import DarkNet53, EfficientNetLite, MobileNetV2, ResNet

IMAGES = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
# Class: (options of a narrow network, the stages that C2 to C5 are the outputs of).
BACKBONES = {
    ResNet: ({"depth": 18, "width": 4}, (1, 2, 3, 4)),
    MobileNetV2: ({"width": 8, "last_conv": False}, (2, 3, 5, 7)),
    EfficientNetLite: ({}, (2, 3, 5, 7)),
    DarkNet53: ({"width": 2}, (2, 3, 4, 5)),
}
every = pytest.mark.parametrize("kind", BACKBONES, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def narrow():
    """Function from a class to its narrow network with the levels up to C2 frozen."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = kind(**BACKBONES[kind][0], norm="batch", freeze_at=2)
        return made[kind]

    return make


@every
def test_levels_have_their_strides_at_odd_sizes_too(kind, narrow):
    for level, x in narrow(kind)(np.zeros((1, 70, 33, 3), "float32")).items():
        stride = 2 ** int(level[1:])
        assert x.shape[1:3] == (-(-70 // stride), -(-33 // stride))


@every
@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_freezes_up_to_a_level(kind, freeze_at):
    options, stages = BACKBONES[kind]
    with keras.StatelessScope():  # weights are created without values
        model = kind(**options, norm="batch", freeze_at=freeze_at)
    parts = ["stem", *(f"stage{stage}" for stage in range(1, stages[-1] + 1))]
    frozen = {layer.name.split("_")[0] for layer in model.layers if layer.weights and not layer.trainable}
    assert frozen == set(parts[: [0, *stages][freeze_at - 1] + 1] if freeze_at else ())
    assert {w.path.split("/")[-2].split("_")[0] for w in model.trainable_weights} == set(parts) - frozen


@every
@pytest.mark.parametrize("norm", ["batch", "frozen_batch", "group"])
def test_every_trainable_weight_gets_a_gradient(kind, norm):
    model = kind(**BACKBONES[kind][0], norm=norm)
    if norm == "frozen_batch":
        assert {w.name for w in model.trainable_weights} == {"kernel"}
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(x**2) for x in model(IMAGES, training=True).values())
    weights = model.trainable_weights
    for weight, gradient in zip(weights, tape.gradient(loss, [w.value for w in weights]), strict=True):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, weight.path


@every
def test_saving_and_loading_keep_the_results(kind, narrow, tmp_path):
    model = narrow(kind)
    model.save(tmp_path / "backbone.keras")
    again = keras.saving.load_model(tmp_path / "backbone.keras")
    assert isinstance(again, kind)
    assert [w.path for w in again.trainable_weights] == [w.path for w in model.trainable_weights]
    for level, x in model(IMAGES).items():
        np.testing.assert_array_equal(x, again(IMAGES)[level])
