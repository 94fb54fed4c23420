"""Keras layers, each holding its weights and its options."""

from keras_maskrcnn.layers.roi_align import RoIAlign

__all__ = ["RoIAlign"]
