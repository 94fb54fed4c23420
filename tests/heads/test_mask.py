"""The mask head, and its deconvolution against Keras' transposed convolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.heads.mask import Deconvolution2x, MaskHead


def regions(count=3, height=4, width=4, channels=5):
    return np.random.default_rng(0).normal(size=(count, height, width, channels)).astype("float32")


def test_deconvolution_by_hand():
    layer = Deconvolution2x(1)
    layer.build((None, None, None, 1))
    layer.set_weights([np.array([[1, 2], [3, 4]]).reshape(1, 2, 2, 1), np.array([0.5])])
    # Each cell becomes itself times [[1, 2], [3, 4]] (kernel rows are rows of the image), plus the bias.
    enlarged = layer(np.array([[1, 10, 100]], "float32").reshape(1, 1, 3, 1))
    expected = np.array([[1, 2, 10, 20, 100, 200], [3, 4, 30, 40, 300, 400]]) + 0.5
    np.testing.assert_array_equal(enlarged[0, ..., 0], expected)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5)])
def test_deconvolution_is_the_transposed_convolution(height, width):
    ours, theirs = Deconvolution2x(7), keras.layers.Conv2DTranspose(7, 2, strides=2)
    x = tf.constant(regions(height=height, width=width))
    ours(x), theirs(x)
    kernel, bias = (np.random.default_rng(3).normal(size=s).astype("float32") for s in ((5, 2, 2, 7), (7,)))
    ours.set_weights([kernel, bias])
    theirs.set_weights([kernel.transpose(1, 2, 3, 0), bias])  # Keras: [row, column, output, input]
    found, wanted = [], []
    for layer, results in ((ours, found), (theirs, wanted)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(y))
        results += [y, *tape.gradient(loss, [x, layer.kernel.value, layer.bias.value])]
    wanted[2] = tf.transpose(wanted[2], (3, 0, 1, 2))
    for ours_value, theirs_value in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours_value, theirs_value, atol=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_shapes_and_float32_logits(policy):
    head = MaskHead(2, {"width": 6, "depth": 2}, dtype=policy)
    logits = head(regions(), np.array([1, 2, 0], "int32"))
    assert logits.shape == (3, 8, 8) and logits.dtype == tf.float32
    assert head.deconvolution.compute_dtype == policy.removeprefix("mixed_")


def test_weights_of_the_paper():
    head = MaskHead(80)
    head.build((None, 14, 14, 256))
    # Four 3×3 convolutions, 2×2 deconvolution, 1×1 to 81 masks; 256 channels throughout.
    assert head.count_params() == 4 * (9 * 256 * 256 + 256) + (4 * 256 * 256 + 256) + (256 * 81 + 81)


def test_each_region_gets_the_mask_of_its_own_class():
    head = MaskHead(3, {"width": 6, "depth": 1})
    head.build((None, 4, 4, 5))
    head.logits.set_weights([np.zeros((1, 1, 6, 4)), np.array([10, 11, 12, 13])])
    logits = head(regions(4), np.array([3, 0, 1, 2], "int32"))
    np.testing.assert_array_equal(logits, np.broadcast_to(np.array([13, 10, 11, 12])[:, None, None], (4, 8, 8)))


def test_own_class_alone_equals_its_column_of_all_classes():
    head = MaskHead(4, {"width": 6, "depth": 1})
    head.build((None, 4, 4, 5))
    head.set_weights([np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(head.get_weights())])
    x, labels = tf.constant(regions(5)), np.array([3, 0, 1, 4, 1], "int32")

    def everything(x):
        logits = head.logits(tf.nn.relu(head.deconvolution(head.stack(x))))
        return tf.gather(logits, labels, axis=-1, batch_dims=1)

    results = []
    for function in (lambda x: head(x, labels), everything):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = function(x)
            loss = tf.reduce_sum(tf.sin(logits))
        results.append([logits, *tape.gradient(loss, [x, *(w.value for w in head.trainable_weights)])])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_only_the_own_class_learns():
    head = MaskHead(2, {"width": 6, "depth": 1})
    head.build((None, 4, 4, 5))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(regions(), np.array([2, 2, 2], "int32")))
    kernel, bias = tape.gradient(loss, [head.logits.kernel.value, head.logits.bias.value])
    assert not kernel.numpy()[..., :2].any() and kernel.numpy()[..., 2].any()
    np.testing.assert_allclose(bias, [0, 0, 3 * 64])


def test_every_weight_learns():
    head = MaskHead(2, {"width": 6, "depth": 2})
    head.build((None, 4, 4, 5))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(regions(), np.array([0, 1, 2], "int32")) ** 2)
    gradients = tape.gradient(loss, [w.value for w in head.trainable_weights])
    assert len(gradients) == 2 * 4 and all(np.abs(g).max() > 0 for g in gradients)


def test_no_convolutions_before_the_deconvolution():
    head = MaskHead(2, {"width": 6, "depth": 0})
    assert head(regions(1), np.zeros(1, "int32")).shape == (1, 8, 8)
    assert head.count_params() == (4 * 5 * 6 + 6) + (6 * 3 + 3)
