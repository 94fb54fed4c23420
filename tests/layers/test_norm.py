"""Normalisation: comparison with Keras' layers, hand-computed values, frozen statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.backend import replicas
from keras_maskrcnn.layers.norm import KINDS, BatchNorm, FrozenBatchNorm, GroupNorm, norm

SHAPE = (3, 5, 4, 6)
COUNT = 3 * 5 * 4  # values per channel


def features(shape=SHAPE, seed=0):
    """Values whose channels differ in mean and variance."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * rng.uniform(0.5, 3, shape[-1]) + rng.normal(size=shape[-1]) * 2).astype("float32")


def randomise(layer, seed=1):
    """Weights other than 0 and 1."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(0.5, 2, w.shape) for w in layer.weights])


def value_and_gradients(layer, x, **call):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **call)
        loss = tf.reduce_sum(y * tf.constant(features(y.shape, seed=9)))
    gradients = tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])
    return [y.numpy(), *(g.numpy() for g in gradients)]


def twins(epsilon=1e-3, momentum=0.8):
    ours, keras_layer = (
        kind(epsilon=epsilon, momentum=momentum) for kind in (BatchNorm, keras.layers.BatchNormalization)
    )
    for layer in (ours, keras_layer):
        layer.build(SHAPE)
        randomise(layer)
    return ours, keras_layer


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_keras(training):
    ours, theirs = twins()
    for found, wanted in zip(
        value_and_gradients(ours, features(), training=training),
        value_and_gradients(theirs, features(), training=training),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, atol=2e-4 * max(np.abs(wanted).max(), 1))


def test_moving_averages_use_the_unbiased_variance():
    ours, theirs = twins()
    before = ours.moving_variance.numpy()
    x = features()
    ours(x, training=True)
    theirs(x, training=True)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        ours.moving_variance, 0.8 * before + 0.2 * x.var(axis=(0, 1, 2)) * COUNT / (COUNT - 1), rtol=1e-5
    )
    # The Keras layer uses the biased variance; there is no other difference.
    np.testing.assert_allclose(theirs.moving_variance, 0.8 * before + 0.2 * x.var(axis=(0, 1, 2)), rtol=1e-5)


def test_moving_averages_by_hand_as_in_torch():
    layer = norm("batch", "norm")
    layer(np.array([0, 2], "float32").reshape(1, 1, 2, 1), training=True)
    # Mean 1; variance 1 of two values, 2 without bias; torch's momentum 0.1 is Keras' 0.9.
    np.testing.assert_allclose(layer.moving_mean, [0.1], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.9 + 0.1 * 2], rtol=1e-6)


def test_statistics_of_valid_rows_by_hand():
    layer = norm("batch", "norm")
    layer.build((None, 1, 2, 1))
    x = np.array([[0, 2], [4, 6], [np.nan, 1e9], [100, 100]], "float32").reshape(4, 1, 2, 1)
    y = layer(x, training=True, valid=np.array([True, True, False, False]))
    # 0, 2, 4, 6: mean 3, variance 5 of four values, 20 / 3 without bias.
    np.testing.assert_allclose(np.ravel(y[:2]), np.array([-3, -1, 1, 3]) / np.sqrt(5 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, [0.3], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.9 + 0.1 * 20 / 3], rtol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("static", [False, True])
def test_rows_that_are_not_valid_change_nothing(policy, static):
    """Values, gradients and statistics of the valid rows equal those of a batch without the other rows."""
    valid = np.array([True, False, True, True, False])
    x = features((5, 5, 4, 6))
    results = []
    for rows, call in ((x[valid], {}), (x, {"valid": tf.constant(valid)})):
        layer = norm("batch", "norm", dtype=policy)
        layer.build(SHAPE)
        randomise(layer)
        rows = tf.constant(rows)
        with backend.static_shapes_scope(static), tf.GradientTape() as tape:
            tape.watch(rows)
            y = layer(rows, training=True, **call)
            assert y.dtype == layer.compute_dtype
            y = tf.cast(y if not call else tf.boolean_mask(y, valid), "float32")
            loss = tf.reduce_sum(y * tf.constant(features(y.shape, seed=9)))
        gradients = tape.gradient(loss, [rows, layer.gamma.value, layer.beta.value])
        results.append([y, *gradients, layer.moving_mean.numpy(), layer.moving_variance.numpy()])
    unmasked, masked = results
    assert not np.asarray(masked[1])[~valid].any()
    masked[1] = masked[1][valid]
    for found, wanted in zip(masked, unmasked, strict=True):
        size = max(np.abs(wanted).max(), 1)
        np.testing.assert_allclose(found, wanted, atol=(0.02 if "bfloat16" in policy else 2e-4) * size)


def test_without_a_valid_row_the_statistics_stay():
    layer, _ = twins()
    before = [w.numpy() for w in layer.weights]
    gradients = value_and_gradients(layer, features(), training=True, valid=np.zeros(3, "bool"))
    assert all(np.isfinite(g).all() for g in gradients)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_valid_rows_make_no_difference_at_inference_or_where_all_are_valid():
    layer, other = twins()[0], twins()[0]
    some = np.array([True, False, True])
    np.testing.assert_array_equal(layer(features(), valid=some), layer(features()))
    layer.trainable = other.trainable = True
    np.testing.assert_allclose(
        layer(features(), training=True, valid=np.ones(3, "bool")), other(features(), training=True), atol=1e-4
    )
    np.testing.assert_allclose(layer.moving_variance, other.moving_variance, rtol=1e-5)
    layer.trainable = False
    np.testing.assert_array_equal(layer(features(), training=True, valid=some), layer(features()))


def test_valid_rows_of_other_axes_are_rejected():
    with pytest.raises(ValueError, match="valid rows need channels last"):
        BatchNorm(axis=1)(features(), training=True, valid=np.ones(3, "bool"))


def test_a_frozen_batch_norm_layer_uses_and_keeps_its_stored_statistics():
    layer, _ = twins()
    layer.trainable = False
    before = [w.numpy() for w in layer.weights]
    np.testing.assert_array_equal(layer(features(), training=True), layer(features(), training=False))
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_inference_keeps_the_statistics():
    layer, _ = twins()
    before = layer.moving_mean.numpy()
    layer(features())
    np.testing.assert_array_equal(layer.moving_mean, before)


@pytest.mark.parametrize(
    "options", [{"scale": False}, {"center": False}, {"axis": 1}, {"scale": False, "center": False}]
)
def test_options_that_cannot_be_fused_are_respected(options):
    ours, theirs = BatchNorm(**options), keras.layers.BatchNormalization(**options)
    for training in (True, False):
        np.testing.assert_allclose(
            ours(features(), training=training), theirs(features(), training=training), atol=1e-5
        )


def test_frozen_batch_norm_by_hand():
    layer = FrozenBatchNorm(epsilon=0.25)
    layer.build((None, None, None, 1))
    for weight, value in ((layer.gamma, 3), (layer.beta, 5), (layer.moving_mean, 1), (layer.moving_variance, 3.75)):
        weight.assign([value])
    # 3 · (x - 1) / √(3.75 + 0.25) + 5
    np.testing.assert_allclose(layer(np.array([[[[1.0], [3.0]]]])), [[[[5], [8]]]], rtol=1e-6)


def test_frozen_batch_norm_agrees_with_keras_and_never_trains():
    layer, reference = FrozenBatchNorm(epsilon=1e-3), keras.layers.BatchNormalization(epsilon=1e-3)
    for each in (layer, reference):
        each.build(SHAPE)
        randomise(each)
    assert [w.name for w in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    for trainable in (True, False, True):
        layer.trainable = trainable
        assert layer.trainable_weights == []
        assert len(layer.non_trainable_weights) == 4
    before = [w.numpy() for w in layer.weights]
    expected = reference(features(), training=False)
    np.testing.assert_allclose(layer(features()), expected, atol=1e-4)
    model = keras.Sequential([layer])
    np.testing.assert_allclose(model(features(), training=True), expected, atol=1e-4)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_frozen_batch_norm_passes_gradients():
    layer = FrozenBatchNorm(epsilon=0.0)
    layer.build(SHAPE)
    randomise(layer)
    gradient = value_and_gradients(layer, features())[1]
    scale = layer.gamma.numpy() / np.sqrt(layer.moving_variance.numpy())
    np.testing.assert_allclose(gradient, features(seed=9) * scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("groups", "channels"), [(3, 6), (32, 6), (1, 6), (32, 64)])
def test_group_norm_equals_keras(groups, channels):
    x = features((2, 4, 3, channels))
    ours, theirs = GroupNorm(groups), keras.layers.GroupNormalization(min(groups, channels), epsilon=1e-5)
    for layer in (ours, theirs):
        layer.build(x.shape)
        randomise(layer)
    for found, wanted in zip(value_and_gradients(ours, x), value_and_gradients(theirs, x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-4 * max(np.abs(wanted).max(), 1))


def test_group_norm_is_independent_of_other_images():
    layer = GroupNorm(3)
    x = features()
    np.testing.assert_allclose(layer(x)[1:2], layer(x[1:2]), atol=1e-6)


def test_group_norm_of_a_constant_is_finite():
    values = value_and_gradients(GroupNorm(2), np.full((1, 3, 3, 4), 7.0, "float32"))
    assert all(np.isfinite(v).all() for v in values)
    np.testing.assert_allclose(values[0], 0, atol=1e-2)


@pytest.mark.parametrize("mean", [100, 5000])
def test_group_norm_of_values_far_from_zero(mean):
    """E[x²] - E[x]² in float32 would be wrong by 1 % at a mean of 100 deviations, and clipped to 0 at 5,000."""
    x = (np.random.default_rng(0).normal(size=(1, 16, 16, 4)) + mean).astype("float32")
    parts = x.astype("float64").reshape(1, -1, 2, 2)
    expected = (parts - parts.mean((1, 3), keepdims=True)) / np.sqrt(parts.var((1, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(GroupNorm(2)(x), expected.reshape(x.shape), atol=2e-3)


def test_group_norm_rejects_indivisible_channels():
    with pytest.raises(ValueError, match="48 channels are not divisible into 32 groups"):
        GroupNorm()(np.zeros((1, 2, 2, 48), "float32"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds(kind):
    layer = norm(kind, "here", dtype="mixed_bfloat16", epsilon=2e-3)
    assert layer.name == "here" and layer.dtype_policy.name == "mixed_bfloat16"
    assert kind is None or layer.epsilon == 2e-3
    y = layer(tf.cast(features(), "bfloat16"))
    assert y.dtype == "bfloat16" and y.shape == SHAPE
    assert all(w.dtype == "float32" for w in layer.weights)


@pytest.mark.parametrize("kind", ["batch", "frozen_batch", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_is_close_to_float32(kind, training):
    exact, coarse = norm(kind, "a"), norm(kind, "b", dtype="mixed_bfloat16")
    for layer in (exact, coarse):
        layer.build(SHAPE)
        randomise(layer)
    x = tf.cast(features(), "bfloat16")
    call = {"training": training} if kind == "batch" else {}
    expected = exact(tf.cast(x, "float32"), **call).numpy()
    np.testing.assert_allclose(tf.cast(coarse(x, **call), "float32"), expected, atol=0.02 * np.abs(expected).max())


def test_frozen_constants_are_not_rounded_to_bfloat16_before_use():
    layer = FrozenBatchNorm(epsilon=0.0, dtype="mixed_bfloat16")
    layer.build((None, None, None, 1))
    # Offset 257.25 - 257 = 0.25. In bfloat16 both would be rounded, to 258 and 256: an offset of 2.
    layer.beta.assign([257.25])
    layer.moving_mean.assign([257.0])
    assert float(layer(tf.zeros((1, 1, 1, 1), "bfloat16"))[0, 0, 0, 0]) == 0.25


def test_unknown_kinds_are_rejected():
    with pytest.raises(ValueError, match="norm='layer' is not one of"):
        norm("layer", "here")


def test_synchronised_statistics_on_one_device_are_those_of_the_batch():
    plain, synchronised = norm("batch", "n"), BatchNorm.from_config(norm("sync_batch", "n").get_config())
    assert synchronised.synchronized
    x = features()
    for layer in (plain, synchronised):
        layer.build(SHAPE)
        randomise(layer)
    for training in (True, False):
        np.testing.assert_array_equal(plain(x, training=training), synchronised(x, training=training))
    for one, other in zip(plain.weights, synchronised.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_synchronised_statistics_of_valid_rows_are_those_of_all_replicas(monkeypatch):
    """Two replicas, one of which is played by its sums: the other's share of the count, the sum and the squares."""
    x, valid = features(), np.array([True, False, True])
    whole = norm("sync_batch", "n")
    expected = whole(x, training=True, valid=valid)
    rest = x[2:]
    centre = x[valid].mean(axis=(0, 1, 2))
    sums = iter([rest[..., 0].size, rest.sum(axis=(0, 1, 2)), np.square(rest - centre).sum(axis=(0, 1, 2))])
    monkeypatch.setattr(replicas, "number", lambda: 2)
    monkeypatch.setattr(replicas, "total", lambda values: values + tf.cast(next(sums), values.dtype))
    part = norm("sync_batch", "n")
    np.testing.assert_allclose(part(x[:2], training=True, valid=valid[:2]), expected[:2], atol=1e-5)
    for one, other in zip(part.weights, whole.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
