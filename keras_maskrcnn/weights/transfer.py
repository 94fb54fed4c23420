"""Copies weights from one model to another of the same class, part by part."""

from keras import ops

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.heads.mask import MaskHead
from keras_maskrcnn.weights import channels
from keras_maskrcnn.weights.assign import announce, announce_mask_loss, per_class_layers


def copy(source, target, path):
    """Copies the weights of the parts that both models have; on an error the target is unchanged.

    If the numbers of classes differ, the layers whose width depends on it keep the target's values. These layers, and
    parts that the source does not have, are printed in one line. For images of another number of channels the first
    convolution is adapted, see `weights.channels`.

    Args:
        source: model with the weights of `path`.
        target: model of the same class with other options.
        path: for the printed lines and errors.

    Raises:
        DataError: a weight has another shape in the target; the message is one line.
    """
    other_classes = source.num_classes != target.num_classes
    given, wanted = (_weights(model, other_classes) for model in (source, target))
    first = channels.first_kernel(target.backbone) if hasattr(target, "backbone") else None
    pairs = []
    for part in given.keys() & wanted.keys():
        if len(given[part]) != len(wanted[part]):
            raise DataError(path, f"has {len(given[part])} weights for {part}, the model {len(wanted[part])}")
        for one, other in zip(given[part], wanted[part], strict=True):
            pairs.append((channels.fitting(ops.convert_to_numpy(one), other.shape) if other is first else one, other))
    for one, other in pairs:
        if tuple(one.shape) != tuple(other.shape):
            shapes = f"{list(one.shape)} does not fit {list(other.shape)}"
            raise DataError(path, f"{other.path}: {shapes} of the model with these options")
    for one, other in pairs:
        other.assign(one)
    reset = list(per_class_layers(target)) if other_classes and hasattr(target, "all_heads") else []
    announce(target, path, source.num_classes, reset, [part for part in wanted if part not in given])
    masks = source.parts().get("mask_head") if hasattr(source, "parts") else None
    if isinstance(masks, MaskHead):
        announce_mask_loss(target, path, masks.stage.loss)
    channels.announce(path, source.image_type.channels, target.image_type.channels)


def _weights(model, other_classes):
    """Weights by part, a model without parts being one; those that depend on the number of classes on demand only."""
    parts = model.parts() if hasattr(model, "parts") else {model.name: model}
    layers = per_class_layers(model).values() if other_classes and hasattr(model, "all_heads") else ()
    left_out = {id(weight) for layer in layers for weight in layer.weights}
    return {name: [weight for weight in part.weights if id(weight) not in left_out] for name, part in parts.items()}
