"""From files on disk to batches: readers, augmentation and the input pipeline.

Reading order: `sample` (the contract), `fields`, one reader per format, `grouped`, `geometry`, `colour`, `augment`,
`centred`, `mini_masks`, `prepare`, `pipeline`.
Each name is imported on first use. `Coco` and the readers of outlines need pycocotools, `Cis680` h5py, `TfRecord`
google-crc32c; TensorFlow and Keras are imported when `batches` runs. `open` finds the reader of a path, `Strict` makes
bad input an error, `write_coco`, `write_tfrecord` and `write_yolo` write what a reader reads.
"""

from keras_maskrcnn.lazy import exports

_MODULES = {
    "VEHICLES_PEOPLE_ANIMALS": "grouped",
    "Arrays": "arrays",
    "Augment": "augment",
    "Cached": "cache",
    "Centred": "centred",
    "Cis680": "cis680",
    "Coco": "coco",
    "DataError": "sample",
    "Dataset": "sample",
    "Field": "fields",
    "Grouped": "grouped",
    "LabelMe": "labelme",
    "Nuclei": "nuclei",
    "PennFudan": "penn_fudan",
    "Points": "fields",
    "Shapes": "shapes",
    "Stretched": "colour",
    "Strict": "strict",
    "Subset": "sample",
    "TfRecord": "tf_record",
    "Via": "via",
    "Voc": "voc",
    "Yolo": "yolo",
    "batches": "pipeline",
    "crop_masks": "mini_masks",
    "every_split": "formats",
    "held_out": "formats",
    "left_out": "strict",
    "open": "formats",
    "mask_boxes": "mini_masks",
    "paste_masks": "mini_masks",
    "print_left_out": "strict",
    "read_image": "image_file",
    "splits": "formats",
    "stretch": "colour",
    "validate": "sample",
    "write_coco": "to_coco",
    "write_tfrecord": "to_tf_record",
    "write_yolo": "to_yolo",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = exports(__name__, _MODULES)
