from keras_maskrcnn import backbones as backbones
from keras_maskrcnn import data as data
from keras_maskrcnn import evaluation as evaluation
from keras_maskrcnn import heads as heads
from keras_maskrcnn import inference as inference
from keras_maskrcnn import layers as layers
from keras_maskrcnn import models as models
from keras_maskrcnn import ops as ops
from keras_maskrcnn import training as training
from keras_maskrcnn import visualize as visualize
from keras_maskrcnn import weights as weights
from keras_maskrcnn.models import FCN as FCN
from keras_maskrcnn.models import YOLACT as YOLACT
from keras_maskrcnn.models import MaskRCNN as MaskRCNN

__version__: str
