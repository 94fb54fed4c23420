"""From files on disk to batches: readers, augmentation and the input pipeline.

Reading order: `sample` (the contract), `fields`, one reader per format, `grouped`, `geometry`, `augment`, `centred`,
`mini_masks`, `prepare`, `pipeline`.
Each name is imported on first use. `Coco` needs pycocotools and `Cis680` h5py; TensorFlow and Keras are imported when
`batches` runs.
"""

import importlib

_MODULES = {
    "VEHICLES_PEOPLE_ANIMALS": "grouped",
    "Augment": "augment",
    "Cached": "cache",
    "Centred": "centred",
    "Cis680": "cis680",
    "Coco": "coco",
    "DataError": "sample",
    "Dataset": "sample",
    "Field": "fields",
    "Grouped": "grouped",
    "Nuclei": "nuclei",
    "PennFudan": "penn_fudan",
    "Points": "fields",
    "Shapes": "shapes",
    "Subset": "sample",
    "batches": "pipeline",
    "crop_masks": "mini_masks",
    "mask_boxes": "mini_masks",
    "paste_masks": "mini_masks",
    "read_image": "image_file",
    "validate": "sample",
}
__all__ = list(_MODULES)


def __getattr__(name):
    """Imports a public name on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
