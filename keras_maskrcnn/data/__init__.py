"""From files on disk to batches: readers, augmentation and the input pipeline.

Reading order: `sample` (the contract), one reader a format, `grouped`, `geometry`, `augment`, `centred`, `mini_masks`,
`prepare`, `pipeline`.
Importing this package needs NumPy, Pillow and pycocotools; TensorFlow and Keras are imported by `batches`, h5py by
`Cis680`, when they run.
"""

from keras_maskrcnn.data.augment import Augment
from keras_maskrcnn.data.cache import Cached
from keras_maskrcnn.data.centred import Centred
from keras_maskrcnn.data.cis680 import Cis680
from keras_maskrcnn.data.coco import Coco
from keras_maskrcnn.data.grouped import VEHICLES_PEOPLE_ANIMALS, Grouped
from keras_maskrcnn.data.image_file import read_image
from keras_maskrcnn.data.mini_masks import crop_masks, mask_boxes, paste_masks
from keras_maskrcnn.data.nuclei import Nuclei
from keras_maskrcnn.data.penn_fudan import PennFudan
from keras_maskrcnn.data.pipeline import batches
from keras_maskrcnn.data.sample import DataError, Dataset, Subset, validate
from keras_maskrcnn.data.shapes import Shapes

__all__ = [
    "VEHICLES_PEOPLE_ANIMALS",
    "Augment",
    "Cached",
    "Centred",
    "Cis680",
    "Coco",
    "DataError",
    "Dataset",
    "Grouped",
    "Nuclei",
    "PennFudan",
    "Shapes",
    "Subset",
    "batches",
    "crop_masks",
    "mask_boxes",
    "paste_masks",
    "read_image",
    "validate",
]
