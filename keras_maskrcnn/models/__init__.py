"""Models: the two-stage flow, the one-stage flow, and the base of all models."""

from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.models.mask_rcnn import MaskRCNN
from keras_maskrcnn.models.yolact import YOLACT

__all__ = ["YOLACT", "FirstStage", "MaskRCNN"]
