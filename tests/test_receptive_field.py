"""Receptive fields: hand-computed values, and comparison of the gradient probe with them."""

import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_maskrcnn import backbones
from keras_maskrcnn.cli import main
from keras_maskrcnn.receptive_field import effective_size, probe, reach, receptive_field


def one_layer(*made, size=(None, None, 3)):
    image = x = keras.Input(size)
    for layer in made:
        x = layer(x)
    return keras.Model(image, {"C": x})


def test_simple_cnn_by_hand():
    # 5; 6 at stride 2; 6 + 4·2 = 14; 16; 16 + 4·4 = 32; 36; 36 + 4·8 = 68; 76; 76 + 4·16 = 140; 140 + 2·16 = 172.
    network = backbones.SimpleCNN()
    assert receptive_field(network) == (172, 16)
    sizes = [receptive_field(network, level, then=()) for level in ("C1", "C2", "C3", "C4")]
    assert sizes == [(14, 2), (32, 4), (68, 8), (140, 16)]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        # Stem 7, pool 11; a 3×3 layer adds twice the stride of its input.
        ("resnet18", {"C2": (43, 4), "C3": (99, 8), "C4": (211, 16), "C5": (435, 32)}),
        ("resnet50", {"C2": (35, 4), "C3": (91, 8), "C4": (267, 16), "C5": (427, 32)}),
    ],
)
def test_resnet_by_hand(name, sizes):
    network = backbones.get({"name": name, "width": 8})
    assert {level: receptive_field(network, level, then=()) for level in sizes} == sizes


def test_position_of_the_stride_in_a_bottleneck():
    network = backbones.get({"name": "resnet50", "width": 8, "stride_in_1x1": True})
    assert receptive_field(network, "C5", then=()) == (483, 32)


def test_dilation_padding_cropping_and_subsequent_layers():
    network = one_layer(layers.ZeroPadding2D(3), layers.Conv2D(2, 3, dilation_rate=2), layers.Cropping2D(1))
    assert reach(network, "C", then=()) == (-2, 2, 1)
    assert receptive_field(network, "C", then=((2, 2), (3, 1))) == (5 + 1 + 2 * 2, 2)


def test_the_longer_side_of_a_kernel_is_used():
    assert receptive_field(one_layer(layers.Conv2D(1, (1, 7), padding="same")), "C", then=()) == (7, 1)


def test_a_shortcut_does_not_shrink_the_field():
    image = keras.Input((None, None, 3))
    wide = layers.Conv2D(3, 5, padding="same")(image)
    network = keras.Model(image, {"C": layers.Add()([image, layers.Conv2D(3, 3, padding="same")(wide)])})
    assert receptive_field(network, "C", then=()) == (7, 1)


def test_global_pooling_is_infinite():
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, padding="same")(image)
    weight = layers.GlobalAveragePooling2D(keepdims=True)(x)
    network = keras.Model(image, {"C": layers.Multiply()([x, weight])})
    assert receptive_field(network, "C", then=())[0] == math.inf


@pytest.mark.parametrize("layer", [layers.UpSampling2D(2), layers.Conv2DTranspose(1, 2, strides=2)])
def test_unsupported_layers_are_rejected(layer):
    with pytest.raises(ValueError, match=layer.name):
        receptive_field(one_layer(layer), "C")


def test_an_unknown_output_is_rejected():
    with pytest.raises(ValueError, match="no output 'C5'; its outputs are C1, C2, C3, C4"):
        receptive_field(backbones.SimpleCNN(), "C5")


def test_probe_agrees_for_the_simple_cnn():
    network = backbones.SimpleCNN(channels=(8, 8, 8, 8, 8))
    further = layers.Conv2D(4, 3, padding="same")
    side, unit = 288, 9
    found = probe(lambda images: further(network(images)["C4"]), (side, side), images=6)
    assert found.extent == (172, 172)
    low = unit * 16 + reach(network).low
    assert found.box == (low, low, low + 172, low + 172)
    assert found.gradient.shape == (side, side) and found.gradient.dtype == np.float32
    # The effective field is concentrated in the centre and much smaller than the theoretical one.
    assert 10 < effective_size(found.gradient) < 172
    middle = found.gradient[low + 60 : low + 112, low + 60 : low + 112]
    assert middle.mean() > 5 * found.gradient[low : low + 172, low : low + 20].mean()


def test_probe_agrees_for_a_residual_network():
    network = backbones.get({"name": "resnet18", "width": 8, "norm": "frozen_batch"})
    found = probe(network, (128, 160), output="C2", unit=(14, 20), images=4)
    low = reach(network, "C2", then=()).low
    assert found.extent == (43, 43)
    assert found.box == (80 + low, 56 + low, 80 + low + 43, 56 + low + 43)


def test_probe_of_a_constant_output_raises():
    with pytest.raises(ValueError, match="depends on no pixel"):
        probe(lambda images: images * 0.0, (16, 16), images=1)


def test_info_prints_the_receptive_field_of_each_level(capsys):
    assert main(["info", "--preset", "mask_rcnn_resnet50_fpn"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("receptive field"))
    assert "C2 35, C3 91, C4 267, C5 427" in line
