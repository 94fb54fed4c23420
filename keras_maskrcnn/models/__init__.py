"""Models: the two-stage flow, the one-stage flow, semantic segmentation, and the base of all models."""

from keras_maskrcnn.models.convolutionalise import convolutionalise
from keras_maskrcnn.models.fcn import FCN
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.models.mask_rcnn import MaskRCNN
from keras_maskrcnn.models.yolact import YOLACT

__all__ = ["FCN", "YOLACT", "FirstStage", "MaskRCNN", "convolutionalise"]
