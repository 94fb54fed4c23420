"""Parameter counts under the definitions used in papers and reports."""

import math

from keras_maskrcnn.layers.norm import BatchNorm, FrozenBatchNorm

NORMS = (BatchNorm, FrozenBatchNorm)


def count_parameters(model):
    """Number of parameters of a model with a backbone of this package.

    torch's `sum(p.numel() for p in model.parameters())` counts no statistics, and nothing of a frozen batch norm:
    it is `without_statistics` of a network with norms "batch", `without_backbone_norm` of one with "frozen_batch".

    Args:
        model: a `MaskRCNN`.

    Returns:
        dict of int: `total` (including batch statistics), `trainable` (with the current `trainable` flags),
        `without_statistics` (`total` without the moving means and variances), `without_backbone_norm` (`total` without
        the batch normalisations of the backbone) and `trainable_frozen_stem` (the same without the stem and the first
        stage).
    """
    weights = [w for layer in _layers(model) for w in layer.weights]
    unique = {id(w): w for w in weights}.values()
    norm = sum(_size(w) for layer in model.backbone.layers if isinstance(layer, NORMS) for w in layer.weights)
    frozen = sum(
        _size(w)
        for layer in model.backbone.layers
        if layer.name.startswith(("stem", "stage1")) and not isinstance(layer, NORMS)
        for w in layer.weights
    )
    total = sum(_size(w) for w in unique)
    statistics = sum(_size(w) for w in unique if w.name.startswith("moving_"))
    return {
        "total": total,
        "trainable": sum(_size(w) for w in model.trainable_weights),
        "without_statistics": total - statistics,
        "without_backbone_norm": total - norm,
        "trainable_frozen_stem": total - norm - frozen,
    }


def _layers(model):
    return [layer for layer in model.layers if layer.weights]


def _size(weight):
    return math.prod(weight.shape)
