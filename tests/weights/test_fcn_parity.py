"""FCN with generated weights against torchvision's `fcn_resnet50`: logits, losses, gradients, number of parameters."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import FCN
from keras_maskrcnn.models.parameters import count_parameters
from keras_maskrcnn.ops.maps import enlarge
from keras_maskrcnn.weights import torchvision
from keras_maskrcnn.weights.assign import fill

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
STEP = np.s_[:, ::3, ::5]


@pytest.fixture(scope="module")
def made():
    """The arrays of golden/make_fcn.py, and its batch, channels last."""
    rng = np.random.RandomState(5)
    images = rng.normal(size=(2, 3, 64, 96)).astype("float32").transpose(0, 2, 3, 1)
    labels = np.kron(rng.randint(0, 21, (2, 8, 12)), np.ones((8, 8), int)).astype("uint8")
    labels[:, :5] = 255
    return np.load(GOLDEN / "fcn.npz"), images, labels


def close(ours, theirs):
    """Equal up to 1e-3 of the largest number: fifty layers sum in another order."""
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.slow
def test_it_equals_torchvision(made, names):
    golden, images, labels = made
    model = FCN.from_preset("fcn_resnet50", pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
    arrays = names.lively(names.drawn(names.torchvision_shapes("fcn_resnet50")))
    fill(model, arrays, "torchvision", "generated")
    assert count_parameters(model)["without_statistics"] == golden["parameters"] == 35_322_218
    inputs = {"images": tf.constant(images), "sizes": tf.constant([[64.0, 96.0]] * 2)}
    features = model.backbone(images)
    for head, level, name in ((model.head, "C5", "out"), (model.auxiliary, "C4", "aux")):
        logits = np.array(enlarge(head([features[level]]), head.stride))
        close(logits[STEP].transpose(0, 3, 1, 2), golden[name])
    with tf.GradientTape() as tape:
        losses = model({**inputs, "semantic": tf.constant(labels)})
        total = model.total_loss(losses)
    np.testing.assert_allclose(losses["semantic_loss"], golden["losses"][0], rtol=1e-4)
    np.testing.assert_allclose(losses["auxiliary_loss"], 0.5 * golden["losses"][1], rtol=1e-4)
    variables = {row.sources[0]: row.variable.value for row in torchvision.name_map(model, arrays)}
    cuts = {
        "classifier.0.weight": np.s_[::8, ::32],
        "backbone.layer4.2.conv2.weight": np.s_[::16, ::32],
        "backbone.layer3.0.conv2.weight": np.s_[::8, ::16],
    }
    stored = {name.removeprefix("gradient "): golden[name] for name in golden.files if name.startswith("gradient ")}
    gradients = tape.gradient(total, {name: variables[name] for name in stored})
    for name, theirs in stored.items():
        ours = np.array(gradients[name]).transpose(3, 2, 0, 1)
        close(ours[cuts.get(name, np.s_[:])], theirs)
