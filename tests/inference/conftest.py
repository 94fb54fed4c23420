"""One model for the tests of inference, traced once for all tests that only read its detections."""

import pathlib
import sys

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.models.base import InstanceModel

sys.path.insert(0, str(pathlib.Path(__file__).parent))

PYRAMID = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "group"},
    "neck": "fpn",
    "fpn_channels": 16,
    "anchors": None,
}


def make_model(**overrides):
    keras.utils.set_random_seed(3)
    small = {
        "proposals": {"pre_nms": 50, "post_nms": 20},
        "box_stage": {"width": 16},
        "mask_stage": {"width": 8, "depth": 1},
        "class_names": ["a", "b", "c"],
    }
    return MaskRCNN(3, **{**small, **overrides})


@pytest.fixture(scope="session")
def make(one_level):
    """Function of arguments, which replace others, to a model."""
    return lambda **overrides: make_model(**{**one_level, **overrides})


@pytest.fixture(scope="session")
def pyramid():
    """Arguments of `make` for a model with a feature pyramid."""
    return PYRAMID


@pytest.fixture(scope="session")
def images():
    """Images of several sizes."""
    rng = np.random.default_rng(0)
    sizes = [(64, 96), (50, 200), (130, 50), (40, 40), (97, 61)]
    return [rng.integers(0, 255, (*size, 3)).astype("uint8") for size in sizes]


class Brightness(InstanceModel):
    """Each image has one object, the whole image, whose score is its mean level; a graph of a few operations."""

    OUTPUTS = OUTPUTS

    def canvas_stride(self):
        return 1

    def call(self, inputs, training=False):
        boxes = keras.ops.tile(keras.ops.flip(inputs["sizes"], axis=1), (1, 2)) * np.float32([0, 0, 1, 1])
        scores = keras.ops.mean(inputs["images"], axis=(1, 2))[:, :1] / 255
        valid = scores > self.limits(inputs).score_threshold
        labels = keras.ops.cast(valid, "int32")
        return {"boxes": boxes[:, None], "scores": scores, "labels": labels, "valid": valid}


@pytest.fixture(scope="session")
def brightness():
    """The class `Brightness`."""
    return Brightness
