"""The pyramid: a hand-computed case, shapes, invalid inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.layers.fpn import FPN


def one_channel(levels, **options):
    """A pyramid of one channel with identity lateral convolutions and 3×3 convolutions that select the centre."""
    layer = FPN(1, **options)
    layer.build({name: (None, *x.shape[1:]) for name, x in levels.items()})
    centre = np.zeros((3, 3, 1, 1))
    centre[1, 1] = 1
    for name in levels:
        layer.lateral[name].set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
        layer.output_conv[name].set_weights([centre, np.zeros(1)])
    return layer


def small_levels():
    fine = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    return {"C2": fine, "C3": np.array([[100, 200], [300, 400]], "float32").reshape(1, 2, 2, 1)}


def test_values_by_hand():
    levels = small_levels()
    pyramid = one_channel(levels)(levels)
    assert list(pyramid) == ["P2", "P3", "P4"]
    np.testing.assert_array_equal(pyramid["P3"], levels["C3"])
    # Nearest neighbours: each cell of C3 is added to its 2 × 2 block of C2.
    blocks = np.kron([[100, 200], [300, 400]], np.ones((2, 2)))
    np.testing.assert_array_equal(pyramid["P2"][0, ..., 0], np.arange(16).reshape(4, 4) + blocks)
    # The extra level is every second cell of the coarsest one, starting with the first.
    np.testing.assert_array_equal(pyramid["P4"], levels["C3"][:, :1, :1])


def test_levels_of_any_size_are_enlarged_between_the_centres_of_their_cells():
    levels = {"C3": np.zeros((1, 3, 5, 1), "float32"), "C4": np.array([[0, 3, 6]], "float32").reshape(1, 1, 3, 1)}
    pyramid = one_channel(levels, extra_level=False, upsampling="bilinear")(levels)
    # The centres of five columns lie at -0.2, 0.4, 1, 1.6, 2.2 of three.
    np.testing.assert_allclose(pyramid["P3"][0, ..., 0], [[0, 1.2, 3, 4.8, 6]] * 3, atol=1e-5)


def test_further_levels_are_convolved_with_padding_on_all_sides():
    levels = {"C3": np.arange(20, dtype="float32").reshape(1, 4, 5, 1) - 8}
    layer = one_channel(levels, extra_level=False, convolved_levels=2, relu=True)
    for name in ("P4", "P5"):
        layer.down_conv[name].set_weights([np.full((3, 3, 1, 1), -1.0), np.zeros(1)])
    pyramid = layer(levels)
    np.testing.assert_array_equal(pyramid["P3"], np.maximum(levels["C3"], 0))
    padded = np.pad(np.maximum(levels["C3"][0, ..., 0], 0), 1)
    sums = [[padded[y : y + 3, x : x + 3].sum() for x in (0, 2, 4)] for y in (0, 2)]
    np.testing.assert_array_equal(pyramid["P4"][0, ..., 0], -np.array(sums))  # negative: no ReLU
    assert {name: tuple(level.shape) for name, level in pyramid.items()} == {
        "P3": (1, 4, 5, 1),
        "P4": (1, 2, 3, 1),
        "P5": (1, 1, 2, 1),
    }
    specs = layer.compute_output_spec({"C3": keras.KerasTensor((None, 4, 5, 1))})
    assert {name: tuple(spec.shape[1:3]) for name, spec in specs.items()} == {"P3": (4, 5), "P4": (2, 3), "P5": (1, 2)}


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="upsampling='cubic' is not one of 'nearest', 'bilinear'"):
        FPN(upsampling="cubic")
    with pytest.raises(ValueError, match="convolved_levels=2 replace the level of extra_level=True"):
        FPN(convolved_levels=2)


def test_extra_level_takes_every_second_cell_also_of_odd_maps():
    levels = {"C5": np.arange(15, dtype="float32").reshape(1, 3, 5, 1)}
    pyramid = one_channel(levels)(levels)
    np.testing.assert_array_equal(pyramid["P6"][0, ..., 0], [[0, 2, 4], [10, 12, 14]])
    assert list(one_channel(levels, extra_level=False)(levels)) == ["P5"]


def test_smoothing_comes_after_the_merge_and_is_not_passed_down():
    levels = small_levels()
    layer = one_channel(levels)
    layer.output_conv["C3"].set_weights([np.zeros((3, 3, 1, 1)), np.array([7.0])])
    pyramid = layer(levels)
    np.testing.assert_array_equal(pyramid["P3"], np.full((1, 2, 2, 1), 7))
    assert float(pyramid["P2"][0, 0, 0, 0]) == 100  # P2 is computed from the merged map, not from P3


def resnet_like(height=64, width=96, channels=(4, 8, 12, 16)):
    rng = np.random.default_rng(0)
    return {
        f"C{i}": rng.normal(size=(2, height // 2**i, width // 2**i, c)).astype("float32")
        for i, c in enumerate(channels, start=2)
    }


def test_shapes_weights_and_spec():
    levels, layer = resnet_like(), FPN(10)
    pyramid = layer(levels)
    shapes = {"P2": (16, 24), "P3": (8, 12), "P4": (4, 6), "P5": (2, 3), "P6": (1, 2)}
    assert {name: tuple(x.shape) for name, x in pyramid.items()} == {n: (2, *s, 10) for n, s in shapes.items()}
    # Laterals: (4 + 8 + 12 + 16)·10 + 4 biases of 10; outputs: 4 · (9·10·10 + 10).
    assert layer.count_params() == 40 * 10 + 40 + 4 * 910
    spec = layer.compute_output_spec({name: keras.KerasTensor(x.shape) for name, x in levels.items()})
    assert list(spec) == list(pyramid)
    assert {name: x.shape for name, x in spec.items()} == {name: tuple(x.shape) for name, x in pyramid.items()}
    unknown = {name: keras.KerasTensor((None, None, None, x.shape[-1])) for name, x in levels.items()}
    assert layer.compute_output_spec(unknown)["P6"].shape == (None, None, None, 10)


def test_every_weight_gets_a_gradient_from_the_finest_or_its_own_level():
    levels, layer = resnet_like(), FPN(4)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(x * x) for x in layer(levels).values())
    for weight, gradient in zip(
        layer.trainable_weights, tape.gradient(loss, [w.value for w in layer.trainable_weights]), strict=True
    ):
        assert np.abs(gradient).max() > 0, weight.path


def test_mixed_precision():
    pyramid = FPN(4, dtype="mixed_bfloat16")(resnet_like())
    assert {x.dtype for x in pyramid.values()} == {tf.bfloat16}
    exact, coarse = FPN(4), FPN(4, dtype="mixed_bfloat16")
    expected = exact(resnet_like())
    coarse(resnet_like())
    coarse.set_weights(exact.get_weights())
    for name, found in coarse(resnet_like()).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(tf.cast(found, "float32"), expected[name], atol=0.03 * scale)


@pytest.mark.parametrize("coarse", [(3, 2), (1, 1), (2, 4)])
def test_levels_that_do_not_halve_are_rejected(coarse):
    levels = {"C4": np.zeros((1, 5, 4, 2), "float32"), "C5": np.zeros((1, *coarse, 2), "float32")}
    with pytest.raises(ValueError, match=r"C4 \(5, 4\) is not twice C5"):
        FPN(2)(levels)


def test_a_map_of_one_cell_does_not_broadcast():
    levels = {"C4": np.zeros((1, 1, 1, 2), "float32"), "C5": np.zeros((1, 1, 1, 2), "float32")}
    with pytest.raises(ValueError, match="is not twice"):
        FPN(2)(levels)
