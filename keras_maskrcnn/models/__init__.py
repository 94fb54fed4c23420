"""Models: the two-stage flow, and the base of all models."""

from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.models.mask_rcnn import MaskRCNN

__all__ = ["FirstStage", "MaskRCNN"]
