"""Loading of weights published by other projects.

    from keras_maskrcnn import MaskRCNN, weights
    model = MaskRCNN.from_preset("mask_rcnn_resnet50_fpn", num_classes=90)
    weights.load(model, "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "torchvision")

Use the preset that belongs to the file: names and shapes are checked, but they do not show whether the stride is in the
1×1 or in the 3×3 convolution, or the epsilon of a normalisation. For fine-tuning, pass your own `num_classes`; the
three layers that depend on it are then initialised.

`files` reads files; `torchvision`, `detectron2`, `matterport` and `yolact` map names; `assign` checks and assigns.
"""

import os

from keras_maskrcnn.lazy import exports

__all__ = ["SOURCES", "Report", "load"]
# On first use: the heads import `rows` from here, and need neither the readers of files nor the backbones.
__getattr__, __dir__ = exports(__name__, {"SOURCES": "assign", "Report": "assign"})


def load(model, path: str | os.PathLike, source: str = "torchvision"):
    """Load published weights into a model; on an error the model is unchanged.

    If the file has another number of classes, the layers for class scores, box deltas and mask logits get their initial
    values. Layers that the file does not contain, such as the mask head for Faster R-CNN weights, are unchanged. In
    both cases a line is printed that lists them. Compile afterwards: an optimizer would keep the momenta of the old
    weights.

    Args:
        model: `MaskRCNN`, `YOLACT` or `FCN` with a backbone that the source publishes weights of.
        path: the file, see `files.read` for the formats.
        source: project that published the file, one of `SOURCES`.

    Returns:
        `Report`: number of assigned variables, layers without weights in the file, and unused arrays.

    Raises:
        DataError: a ValueError whose message is one line with the file's name, for a file that cannot be read, missing
            or unexpected names, wrong shapes, non-finite values, or a model or backbone of another kind.
        ValueError: for an unknown source.
    """
    from keras_maskrcnn.weights import files
    from keras_maskrcnn.weights.assign import fill

    return fill(model, files.read(path, source), source, path)
