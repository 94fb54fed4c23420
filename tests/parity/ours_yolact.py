"""YOLACT on this package's side of the comparison."""

import generated
import tensorflow as tf

from keras_maskrcnn import YOLACT
from keras_maskrcnn.weights import assign

# Detections with scores up to this one are not compared: the reference has those above it.
SCORE = 0.05


def build(version, size, **options):
    """The preset's model with the generated weights, for a canvas (height, width)."""
    model = YOLACT.from_preset(version, num_classes=generated.CLASSES[version] - 1, image_size=size, **options)
    assign.fill(model, generated.weights(version), "yolact", f"generated {version}")
    return model


def training_model(size, version):
    """A version whose norms are frozen, as in the reference."""
    return build(version, size, backbone={"norm": "frozen_batch"})


def answers(model, image):
    """The compared arrays of one image, uint8 `[H, W, 3]` of the model's canvas."""
    inputs = model.placement.batch([image], 1)
    images, sizes = (tf.constant(inputs[name]) for name in ("images", "sizes"))
    pyramid = model.features(images, sizes)
    predicted = model.anchor_head(list(pyramid.values()))
    arrays = {
        **pyramid,
        "class_logits": predicted.logits,
        "box_deltas": predicted.deltas,
        "coefficients": predicted.coefficients,
        "prototypes": model.prototype_head(pyramid["P3"]),
        "semantic_logits": model.pixel_head(pyramid["P3"]),
    }
    arrays = {name: tensor[0].numpy() for name, tensor in arrays.items()}
    return {**model.detect(image, score_threshold=SCORE), **arrays}
