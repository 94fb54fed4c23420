"""The small backbone of the CIS 680 assignment."""

import itertools

import numpy as np
import tensorflow as tf

from keras_maskrcnn.backbones import SimpleCNN


def test_levels_strides_and_widths():
    features = SimpleCNN()(np.zeros((2, 32, 48, 3), "float32"))
    assert {level: tuple(x.shape) for level, x in features.items()} == {
        "C1": (2, 16, 24, 32),
        "C2": (2, 8, 12, 64),
        "C3": (2, 4, 6, 128),
        "C4": (2, 2, 3, 256),
    }


def test_five_convolutions_four_poolings_and_their_weights():
    model = SimpleCNN()
    channels = (3, 16, 32, 64, 128, 256)
    kernels = sum(25 * a * b for a, b in itertools.pairwise(channels))
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == kernels + 2 * sum(channels[1:])
    assert sum(layer.name.startswith("pool") for layer in model.layers) == 4


def test_every_weight_gets_a_gradient():
    model = SimpleCNN(channels=(2, 3, 4), kernel_size=3, norm="group")
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    with tf.GradientTape() as tape:
        features = model(image, training=True)
        loss = sum(tf.reduce_sum(x**2) for x in features.values())
    assert {level: tuple(x.shape) for level, x in features.items()} == {"C1": (1, 4, 4, 3), "C2": (1, 2, 2, 4)}
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    assert all(np.abs(g).max() > 0 for g in gradients)


def test_mixed_precision():
    model = SimpleCNN(channels=(2, 3), dtype="mixed_bfloat16")
    assert model(np.zeros((1, 4, 4, 3), "float32"))["C1"].dtype == tf.bfloat16
    assert {w.dtype for w in model.weights} == {"float32"}
