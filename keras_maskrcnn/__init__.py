"""Mask R-CNN for Keras 3.

Read in the order in which data flows: `data` (files to batches), `ops` (boxes, anchors, matching, RoIAlign, losses as
pure functions), `layers` and `backbones` (what holds weights), `models` (the flow, `models/mask_rcnn.py` first),
`weights` (published files), `training`, `evaluation`, `visualize`, `export`, `cli`. `pickles` reads what others pickled
without running it.
"""

import importlib
import sys

__version__ = "0.1.0"
__all__ = ["MaskRCNN", "__version__", "data", "evaluation", "training", "visualize", "weights"]

_MODULES = ("backbones", "data", "evaluation", "export", "layers", "models", "ops", "training", "visualize", "weights")


def __getattr__(name):
    """Import on first use: Keras and its backend load when something needs them, not for `--help`."""
    if name == "MaskRCNN":
        _register()
        return importlib.import_module("keras_maskrcnn.models").MaskRCNN
    if name in _MODULES:
        return importlib.import_module(f"keras_maskrcnn.{name}")
    raise AttributeError(f"module 'keras_maskrcnn' has no attribute {name!r}")


def _register():
    """Import what a saved model may be made of, so that `keras.saving.load_model` knows these classes by name."""
    for module in ("models", "training.schedules"):
        importlib.import_module(f"keras_maskrcnn.{module}")


if "keras" in sys.modules:  # Keras is paid for already; without it, `python -m keras_maskrcnn --help` stays instant
    _register()
