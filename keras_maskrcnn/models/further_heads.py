"""The heads that a user gives to `MaskRCNN` beside its own."""

import keras

from keras_maskrcnn.heads.map_head import MapHead
from keras_maskrcnn.heads.region_head import ObjectHead

OWN = ("backbone", "fpn", "rpn", "box_head", "mask_head")


def further_heads(heads, dtype):
    """The heads as a list of layers.

    Args:
        heads: list or tuple of `ObjectHead`s and `MapHead`s, or of dicts that `keras.saving.serialize_keras_object`
            makes of them, as a preset holds them.
        dtype: Keras dtype policy of the dicts that state none.

    Raises:
        ValueError: for anything else, and if two heads have the same name, or one has that of a part of the model.
    """
    if isinstance(heads, list | tuple):
        heads = [_deserialised(head, dtype) if isinstance(head, dict) else head for head in heads]
    if not isinstance(heads, list) or not all(isinstance(head, ObjectHead | MapHead) for head in heads):
        raise ValueError(f"heads={heads!r} must be a list of ObjectHeads and MapHeads")
    names = [*OWN, *(head.name for head in heads)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two parts of the model have the name {', '.join(twice)}")
    return heads


def _deserialised(head, dtype):
    """The layer of a dict from `keras.saving.serialize_keras_object`."""
    if not isinstance(head.get("config"), dict) or "class_name" not in head:
        raise ValueError(f"heads={head!r:.100} is no serialised layer: it needs class_name and config")
    return keras.saving.deserialize_keras_object({**head, "config": {"dtype": dtype, **head["config"]}})
