"""From files on disk to batches: readers, augmentation and the input pipeline.

Reading order: `errors`, `sample` (the contract), `image_type`, `fields`, `image_file`; one reader per format: `coco`,
`coco_keypoints`, `lvis` (JSON files), `outlines`, `via`, `labelme` and `yolo` (polygons), `id_masks`, `penn_fudan`,
`nuclei`, `voc`, `cityscapes`, `open_images` and `mask_folder` (mask files), `cis680` and `arrays` (arrays),
`coco_panoptic`, `tf_record` (on `record_shards`, `record_index`, `tf_record_file` and `urls`), `shapes`, `scenes`,
`stick_figures`, `idx` and `digits`; `formats` finds the reader of a path; `to_coco`, `to_tf_record` and `to_yolo` write
what a reader reads, `strict` makes bad input an error, `semantic` makes label maps of masks; then `grouped`,
`geometry`, `colour`, `augment`, `centred`, `mini_masks`, `prepare`, `sampling`, `rows`, `pipeline`.
Each name is imported on first use. `Coco` and the readers of outlines need pycocotools, `Cis680` h5py, `TfRecord`
google-crc32c, `Digits` scikit-learn or a file; TensorFlow and Keras are imported when `batches` runs.
"""

from keras_maskrcnn.lazy import exports

_MODULES = {
    "VEHICLES_PEOPLE_ANIMALS": "grouped",
    "Arrays": "arrays",
    "Augment": "augment",
    "Cached": "cache",
    "Centred": "centred",
    "Cis680": "cis680",
    "Cityscapes": "cityscapes",
    "Coco": "coco",
    "CocoPanoptic": "coco_panoptic",
    "CroppedMasks": "cropped_masks",
    "DataError": "errors",
    "Dataset": "sample",
    "Digits": "digits",
    "Field": "fields",
    "Grouped": "grouped",
    "ImageType": "image_type",
    "LabelMap": "fields",
    "LabelMe": "labelme",
    "Lvis": "lvis",
    "MaskFolder": "mask_folder",
    "Nuclei": "nuclei",
    "OpenImages": "open_images",
    "PennFudan": "penn_fudan",
    "Points": "fields",
    "RepeatFactor": "sampling",
    "Scenes": "scenes",
    "SemanticMasks": "semantic",
    "Shapes": "shapes",
    "StickFigures": "stick_figures",
    "Stretched": "colour",
    "Strict": "strict",
    "Subset": "sample",
    "TfRecord": "tf_record",
    "Via": "via",
    "Voc": "voc",
    "Yolo": "yolo",
    "batches": "pipeline",
    "crop_masks": "mini_masks",
    "held_out": "formats",
    "left_out": "strict",
    "inspect": "doctor.survey",
    "open": "formats",
    "mask_boxes": "mini_masks",
    "paste_masks": "mini_masks",
    "print_left_out": "strict",
    "read_image": "image_file",
    "splits": "formats",
    "stretch": "colour",
    "validate": "sample",
    "write_coco": "to_coco",
    "write_index": "record_shards",
    "write_tfrecord": "to_tf_record",
    "write_yolo": "to_yolo",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = exports(__name__, _MODULES)
