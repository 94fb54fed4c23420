"""Keras layers."""

from keras_maskrcnn.layers.roi_align import RoIAlign, RoIWarp
from keras_maskrcnn.layers.roi_pool import RoIPool

__all__ = ["RoIAlign", "RoIPool", "RoIWarp"]
