"""matterport's network in plain Keras layers under its own names, as the reference for `weights.matterport`.

It has what mrcnn/model.py has: biases everywhere, batch norms with epsilon 1e-3, the stride in the first 1×1
convolution, "same" padding in the stem's pooling, two scores an anchor, deltas in the order (dy, dx, dh, dw). All
widths are free. Regions are fed in, since how they are cut is another matter.
"""

import string

import keras
import numpy as np
from keras import layers

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
EPSILON = 1e-3


def conv(x, filters, size, name, stride=1, padding="valid", activation=None):
    return layers.Conv2D(filters, size, stride, padding, activation=activation, name=name)(x)


def norm(x, name):
    return layers.BatchNormalization(epsilon=EPSILON, name=name)(x)


def relu(x):
    return layers.Activation("relu")(x)


def block(x, width, place, stride, shortcut):
    y = relu(norm(conv(x, width, 1, f"res{place}_branch2a", stride), f"bn{place}_branch2a"))
    y = relu(norm(conv(y, width, 3, f"res{place}_branch2b", padding="same"), f"bn{place}_branch2b"))
    y = norm(conv(y, 4 * width, 1, f"res{place}_branch2c"), f"bn{place}_branch2c")
    if shortcut:
        x = norm(conv(x, 4 * width, 1, f"res{place}_branch1", stride), f"bn{place}_branch1")
    return relu(layers.Add()([y, x]))


def resnet(images, depth, width):
    """[C2, C3, C4, C5]."""
    x = layers.ZeroPadding2D(3)(images)
    x = relu(norm(conv(x, width, 7, "conv1", 2), "bn_conv1"))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    outputs = []
    for stage, blocks in enumerate(STAGES[depth], start=2):
        for letter in string.ascii_lowercase[:blocks]:
            stride = 2 if stage > 2 and letter == "a" else 1
            x = block(x, width * 2 ** (stage - 2), f"{stage}{letter}", stride, shortcut=letter == "a")
        outputs.append(x)
    return outputs


def pyramid(c, width):
    """[P2, …, P6] from [C2, …, C5]."""
    above, merged = None, {}
    for level in (5, 4, 3, 2):
        x = conv(c[level - 2], width, 1, f"fpn_c{level}p{level}")
        above = x if above is None else layers.Add()([layers.UpSampling2D(2)(above), x])
        merged[level] = above
    p = [conv(merged[level], width, 3, f"fpn_p{level}", padding="same") for level in (2, 3, 4, 5)]
    return [*p, layers.MaxPooling2D(1, 2)(p[-1])]


def rpn(features, width, anchors=3):
    """Scores `[B, cells * anchors, 2]` before the softmax and deltas `[B, cells * anchors, 4]`, level after level."""
    shared = layers.Conv2D(width, 3, padding="same", activation="relu", name="rpn_conv_shared")
    scores = layers.Conv2D(2 * anchors, 1, name="rpn_class_raw")
    deltas = layers.Conv2D(4 * anchors, 1, name="rpn_bbox_pred")
    hidden = [shared(x) for x in features]
    join = layers.Concatenate(axis=1)
    return [
        join([layers.Reshape((-1, 2))(scores(x)) for x in hidden]),
        join([layers.Reshape((-1, 4))(deltas(x)) for x in hidden]),
    ]


def box_head(regions, classes, width):
    """Class probabilities `[N, classes]` and deltas `[N, classes, 4]`; `classes` counts background."""
    x = relu(norm(conv(regions, width, regions.shape[1], "mrcnn_class_conv1"), "mrcnn_class_bn1"))
    x = relu(norm(conv(x, width, 1, "mrcnn_class_conv2"), "mrcnn_class_bn2"))
    x = layers.Flatten()(x)
    scores = layers.Dense(classes, name="mrcnn_class_logits")(x)
    deltas = layers.Dense(4 * classes, name="mrcnn_bbox_fc")(x)
    return [layers.Softmax()(scores), layers.Reshape((classes, 4))(deltas)]


def mask_head(regions, classes, width):
    """Mask probabilities `[N, 2P, 2P, classes]`."""
    x = regions
    for i in range(1, 5):
        x = relu(norm(conv(x, width, 3, f"mrcnn_mask_conv{i}", padding="same"), f"mrcnn_mask_bn{i}"))
    x = layers.Conv2DTranspose(width, 2, 2, activation="relu", name="mrcnn_mask_deconv")(x)
    return conv(x, classes, 1, "mrcnn_mask", activation="sigmoid")


def network(depth, classes, width, channels, rpn_width, box_width, mask_width):
    """The whole network, from images of 64×64 pixels, regions for the boxes and regions for the masks.

    Returns:
        keras.Model to a dict of "C2" … "C5", "P2" … "P6", "scores", "anchor_deltas", "classes", "deltas", "masks".
    """
    images = keras.Input((64, 64, 3))
    boxes, masks = keras.Input((7, 7, channels)), keras.Input((14, 14, channels))
    c = resnet(images, depth, width)
    p = pyramid(c, channels)
    outputs = {f"C{i}": x for i, x in enumerate(c, start=2)} | {f"P{i}": x for i, x in enumerate(p, start=2)}
    outputs["scores"], outputs["anchor_deltas"] = rpn(p, rpn_width)
    outputs["classes"], outputs["deltas"] = box_head(boxes, classes, box_width)
    outputs["masks"] = mask_head(masks, classes, mask_width)
    return keras.Model([images, boxes, masks], outputs)


def draw(model, seed=0):
    """Random values for all weights, biases and statistics, scaled so that features are of order one."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            low, high = {"gamma": (0.3, 0.8), "moving_variance": (0.5, 1.5)}.get(weight.name, (-0.3, 0.3))
            if weight.name != "kernel":
                weight.assign(rng.uniform(low, high, weight.shape))
            else:
                weight.assign(rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:3])))


def arrays(model):
    """The weights under the names that `files.read` returns for a Keras 2 file."""
    return {f"{layer.name}/{weight.name}:0": np.array(weight) for layer in model.layers for weight in layer.weights}
