"""A tiny Mask R-CNN and a batch for it, so that a test of the whole flow takes seconds."""

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data

TINY = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "group"},
    "fpn_channels": 16,
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,))},
    "proposals": {"pre_nms": 50, "post_nms": 20},
    "rpn_sampling": {"size": 16},
    "box_sampling": {"size": 16},
    "box_stage": {"width": 16},
    "mask_stage": {"width": 8, "depth": 1},
    "image_size": (64, 64),
    "seed": 7,
}


def make_model(**overrides):
    """A model of about ten thousand weights for three classes and 64×64 canvases."""
    keras.utils.set_random_seed(3)
    return MaskRCNN(3, **{**TINY, **overrides})


@pytest.fixture(scope="session")
def tiny():
    """The function `make_model`, so that a test can change arguments."""
    return make_model


@pytest.fixture(scope="session")
def shapes():
    """Six small images with objects of 12 to 30 pixels."""
    return data.Shapes(6, image_size=(64, 64), seed=5, object_size=(12, 30))


@pytest.fixture(scope="session")
def batch(shapes):
    """Two of the images as NumPy (x, y)."""
    x, y = next(iter(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, backend="numpy")))
    return {k: np.asarray(v) for k, v in x.items()}, {k: np.asarray(v) for k, v in y.items()}
