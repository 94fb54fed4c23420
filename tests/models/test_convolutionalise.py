"""Classifiers as convolutional networks: the score map against the classifier on each window."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_maskrcnn.models import convolutionalise

RNG = np.random.default_rng(0)


def lively(model):
    """The model with random weights, biases and statistics."""
    for weight in model.weights:
        values = RNG.normal(size=weight.shape).astype("float32")
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else 0.3 * values)
    return model


def flattened(padding="valid"):
    return lively(keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(6, 5, padding=padding, activation="relu"),
        layers.MaxPooling2D(2),
        layers.BatchNormalization(),
        layers.Conv2D(8, 3, padding=padding),
        layers.ReLU(),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(12, activation="relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ]))  # fmt: skip


def averaged():
    images = keras.Input((20, 24, 3))
    x = layers.Conv2D(6, 3, activation="relu")(images)
    y = layers.Conv2D(6, 3, padding="valid")(x)
    x = layers.Add()([layers.Cropping2D(1)(x), y])
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2)(x))
    return lively(keras.Model(images, layers.Activation("sigmoid")(layers.Dense(4, use_bias=False)(x))))


@pytest.mark.parametrize("make", [flattened, lambda: flattened("same"), averaged])
def test_an_image_of_the_classifiers_size_gives_its_output(make):
    model = make()
    images = RNG.normal(size=(3, *model.input_shape[1:])).astype("float32")
    found = np.array(convolutionalise(model)(images))
    assert found.shape == (3, 1, 1, model.output_shape[-1])
    np.testing.assert_allclose(found[:, 0, 0], model(images), atol=1e-5)


@pytest.mark.parametrize(("make", "stride"), [(flattened, 4), (averaged, 2)])
def test_each_cell_of_a_larger_image_is_the_classifier_on_its_window(make, stride):
    model = make()
    height, width, channels = model.input_shape[1:]
    image = RNG.normal(size=(1, height + 2 * stride, width + 4 * stride, channels)).astype("float32")
    found = np.array(convolutionalise(model)(image))
    assert found.shape[1:3] == (3, 5)
    for row, column in ((1, 2), (0, 0), (2, 4)):  # the centre first
        y, x = stride * row, stride * column
        window = image[:, y : y + height, x : x + width]
        np.testing.assert_allclose(found[:, row, column], model(window), atol=1e-5)


def test_a_model_that_was_added_layer_by_layer():
    model = keras.Sequential()
    for layer in (keras.Input((9, 9, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(4), layers.Dense(3)):
        model.add(layer)
    image = RNG.normal(size=(1, 9, 9, 1)).astype("float32")
    np.testing.assert_allclose(np.array(convolutionalise(model)(image))[0, 0, 0], model(image)[0], atol=1e-5)


def test_dense_layers_alone():
    model = lively(keras.Sequential([keras.Input((6, 6, 2)), layers.Flatten(), layers.Dense(3)]))
    image = RNG.normal(size=(1, 8, 7, 2)).astype("float32")
    found = np.array(convolutionalise(model)(image))
    assert found.shape == (1, 3, 2, 3)
    np.testing.assert_allclose(found[0, 2, 1], model(image[:, 2:, 1:])[0], atol=1e-5)


def test_a_classifier_of_images_of_any_size_needs_the_size():
    model = keras.Sequential([
        keras.Input((None, None, 1)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)
    ])  # fmt: skip
    with pytest.raises(ValueError, match="takes images of any size: give the image_size that it was trained with"):
        convolutionalise(model)
    image = RNG.normal(size=(1, 9, 9, 1)).astype("float32")
    found = np.array(convolutionalise(model, (7, 7))(image))
    np.testing.assert_allclose(found[0, 1, 1], model(image[:, 1:8, 1:8])[0], atol=1e-5)


def chain(*middle, end=(layers.Flatten, layers.Dense)):
    flatten, dense = end
    return keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(3, 3), flatten(), *middle, dense(2)], name="net")


def branched():
    images = keras.Input((8, 8, 2))
    x = layers.Flatten()(images)
    return keras.Model(images, layers.Add()([layers.Dense(2)(x), layers.Dense(2)(x)]), name="net")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: chain(layers.Reshape((-1, 1))), r"layer 'reshape\w*' \(Reshape\) of net cannot be turned"),
        (lambda: chain(layers.BatchNormalization()), r"\(BatchNormalization\) of net cannot be turned"),
        (
            lambda: chain(end=(layers.GlobalMaxPooling2D, layers.Dense)),
            "net must have one Flatten or Global",
        ),
        (branched, "is not in a chain behind 'flatten"),
        (lambda: keras.Sequential([layers.Dense(2)], name="net"), "net must be a built Sequential or functional model"),
        (
            lambda: keras.Sequential([keras.Input((8,)), layers.Dense(2)], name="net"),
            r"net must take images \[B, H, W, C\]",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.ReLU()], name="net"),
            "net has no dense layer behind its Flatten",
        ),
    ],
)
def test_errors(make, reason):
    with pytest.raises(ValueError, match=reason):
        convolutionalise(make())
