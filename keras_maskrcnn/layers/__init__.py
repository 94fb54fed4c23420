"""Keras layers."""

from keras_maskrcnn.layers.roi_align import RoIAlign

__all__ = ["RoIAlign"]
