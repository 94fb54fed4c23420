"""Finds and names what is wrong with a data set, and repairs what can be repaired, before it is trained on.

Reading order: `findings` (what a check is), `stated` (what annotation files state), `facts` (what is known of an
image), `checks_of_images`, `checks_of_annotations`, `checks_of_sets`, `duplicates`, `survey` (the loop over the images
and its report), `repair`. A check is a function of a few lines with the decorator of its kind; `survey` calls all.
"""

from keras_maskrcnn.lazy import exports

_MODULES = {"KINDS": "findings", "inspect": "survey", "repair": "repair"}
__all__ = list(_MODULES)
__getattr__, __dir__ = exports(__name__, _MODULES)
