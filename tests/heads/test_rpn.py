"""The RPN: order of its outputs, weights, dtypes."""

import keras
import numpy as np
import tensorflow as tf

from keras_maskrcnn.heads.rpn import RPNHead
from keras_maskrcnn.ops.anchors import cell_anchors, grid_anchors

STRIDES = (8, 16)


def rpn(anchors=3, strides=STRIDES, dtype=None, **stage):
    """A head with this number of anchors per location."""
    ratios = tuple(range(1, anchors + 1))
    return RPNHead(strides, stage=stage, anchors={"ratios": ratios}, dtype=dtype)


def numpy(values):
    return [keras.ops.convert_to_numpy(v) for v in values]


def levels(channels=5):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, *size, channels)).astype("float32") for size in ((4, 6), (2, 3))]


def test_shapes_and_dtypes():
    logits, deltas = rpn(3)(levels())
    assert [x.shape for x in logits] == [(2, 72), (2, 18)]
    assert [x.shape for x in deltas] == [(2, 72, 4), (2, 18, 4)]


def test_logits_and_deltas_stay_float32_under_mixed_precision():
    for policy in ("mixed_bfloat16", "mixed_float16"):
        head = rpn(3, dtype=policy)
        logits, deltas = head(levels())
        assert {x.dtype for x in (*logits, *deltas)} == {tf.float32}
        assert head.convs[0].compute_dtype == policy.removeprefix("mixed_")
        assert all(w.dtype == "float32" for w in head.weights)


def test_weights():
    head = rpn(3, channels=7)
    head.build((None, None, None, 5))
    # 3×3 from 5 to 7, then 1×1 to 3 scores and 12 deltas.
    assert head.count_params() == (9 * 5 * 7 + 7) + (7 * 3 + 3) + (7 * 12 + 12)
    assert rpn(2)(levels()) is not None
    wide = rpn(2)
    wide.build((None, None, None, 256))
    assert wide.convs[0].filters == 256
    assert abs(np.std(wide.convs[0].kernel) - 0.01) < 1e-3 and not wide.convs[0].bias.numpy().any()


def test_outputs_come_in_the_order_of_the_anchors():
    """A head that copies the feature: the score of anchor a at (row, column) has the index of that anchor."""
    height, width, count, stride = 3, 4, 2, 8
    head = rpn(count, (8,), channels=2)
    head.build((None, None, None, 2))
    centre = np.zeros((3, 3, 2, 2))
    centre[1, 1] = np.eye(2)
    head.convs[0].set_weights([centre, np.zeros(2)])
    # Objectness of anchor a = column + 100·row + 1000·a; the deltas of anchor a are 10·a + 0…3.
    head.objectness.set_weights([np.array([[[[1, 1], [100, 100]]]]), np.array([0, 1000])])
    head.deltas.set_weights([np.zeros((1, 1, 2, 8)), np.array([0, 1, 2, 3, 10, 11, 12, 13])])
    row, column = np.mgrid[:height, :width]
    logits, deltas = head([np.stack([column, row], axis=-1)[None].astype("float32")])
    anchors = grid_anchors(height, width, stride, cell_anchors((16, 32), (1.0,)))
    centre_x, centre_y = (anchors[:, 0] + anchors[:, 2]) / 2, (anchors[:, 1] + anchors[:, 3]) / 2
    larger = anchors[:, 2] - anchors[:, 0] > 20
    np.testing.assert_allclose(logits[0][0], centre_x / stride + 100 * centre_y / stride + 1000 * larger)
    np.testing.assert_allclose(deltas[0][0], 10 * larger[:, None] + np.arange(4))


def test_levels_share_the_weights():
    head = rpn(3)
    x = levels()[0]
    logits, deltas = head([x, x])
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(deltas[0], deltas[1])


def test_every_weight_gets_a_gradient():
    head = rpn(3)
    head.build((None, None, None, 5))
    with tf.GradientTape() as tape:
        logits, deltas = head(levels())
        loss = sum(tf.reduce_sum(x * x) for x in (*logits, *deltas)) + sum(tf.reduce_sum(x) for x in (*logits, *deltas))
    gradients = tape.gradient(loss, [w.value for w in head.trainable_weights])
    assert all(np.abs(g).max() > 0 for g in gradients) and len(gradients) == 6


def test_reloaded_head_gives_the_same(tmp_path):
    inputs = [keras.Input(x.shape[1:]) for x in levels()]
    model = keras.Model(inputs, rpn(3, channels=6)(inputs))
    model.save(tmp_path / "rpn.keras")
    again = keras.saving.load_model(tmp_path / "rpn.keras")
    for found, expected in zip(keras.tree.flatten(again(levels())), keras.tree.flatten(model(levels())), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_synchronised_batch_norm_uses_the_statistics_of_the_batch():
    """On one device it is batch normalisation: the same outputs in training, and the same moving averages."""
    outputs, statistics = [], []
    for kind in ("batch", "sync_batch"):
        head = rpn(3, channels=4, norm=kind)
        head.build((None, None, None, 5))
        for weight in head.trainable_weights:
            weight.assign(np.random.default_rng(0).normal(size=weight.shape))
        outputs.append(numpy(head(levels(), training=True)[0]))
        statistics.append(head.norms[0].get_weights()[2:])
    assert np.abs(statistics[0][0]).max() > 0.01
    for one, other in zip(outputs[0] + statistics[0], outputs[1] + statistics[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_batch_norm_is_between_convolution_and_relu():
    """With a beta of -1, the ReLU after the norm removes values below the mean plus one standard deviation."""
    head = rpn(1, (8,), channels=2, norm="batch")
    head.build((None, None, None, 5))
    assert head.convs[0].bias is None and len(head.norms) == 1
    features = levels()[:1]
    convolved = keras.ops.convert_to_numpy(head.convs[0](features[0]))
    head.norms[0].beta.assign(-np.ones(2))
    normalised = (convolved - convolved.mean((0, 1, 2))) / np.sqrt(convolved.var((0, 1, 2)) + 1e-5)
    expected = np.maximum(normalised - 1, 0) @ head.objectness.kernel.numpy()[0, 0]
    logits, _ = head(features, training=True)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits[0]), expected.reshape(2, -1), atol=1e-4)
    stored, _ = head(features)  # one step moves the stored statistics by a tenth only
    assert np.abs(keras.ops.convert_to_numpy(stored[0]) - expected.reshape(2, -1)).max() > 1e-3
