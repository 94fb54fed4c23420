"""Mask R-CNN for Keras 3.

Read in the order in which data flows: `data` (files to batches), `ops` (boxes, anchors, matching, RoIAlign, losses as
pure functions), `layers` and `backbones` (weights), `heads` (one file each), `inference` (images of any size to
detections, SavedModels), `models` (the flow, `models/mask_rcnn.py` first), `weights` (published files), `training`,
`evaluation`, `visualize`, `serve`, `cli`, `bulk` (for engines that distribute rows). `pickles` reads pickled arrays
without running them.
"""

import importlib

from keras_maskrcnn.registration import register_with_keras

__version__ = "0.2.0.dev0"
__all__ = ["FCN", "YOLACT", "MaskRCNN", "__version__", "data", "evaluation", "training", "visualize", "weights"]

_MODULES = (
    "backbones",
    "data",
    "evaluation",
    "heads",
    "inference",
    "layers",
    "models",
    "ops",
    "training",
    "visualize",
    "weights",
)


def __getattr__(name):
    """Import on first use: Keras and its backend load when something needs them, not for `--help`."""
    if name in ("FCN", "MaskRCNN", "YOLACT"):
        return getattr(importlib.import_module("keras_maskrcnn.models"), name)
    if name in _MODULES:
        return importlib.import_module(f"keras_maskrcnn.{name}")
    raise AttributeError(f"module 'keras_maskrcnn' has no attribute {name!r}")


register_with_keras()
