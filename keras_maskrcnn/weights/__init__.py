"""Weights that others published, in our layers.

    from keras_maskrcnn import MaskRCNN, weights
    model = MaskRCNN.from_preset("mask_rcnn_resnet50_fpn", num_classes=90)
    weights.load(model, "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "torchvision")

Take the preset that belongs to the file: names and shapes are checked here, but whether the stride sits in the 1×1 or
in the 3×3 convolution, or what a norm's epsilon is, does not show in them. For fine-tuning give your own `num_classes`;
the three layers that depend on it then start anew.

`files` reads; `torchvision`, `detectron2` and `matterport` say which name belongs to which; `assign` checks and fills.
"""

from keras_maskrcnn.weights import files
from keras_maskrcnn.weights.assign import SOURCES, Report, fill

__all__ = ["SOURCES", "Report", "load"]


def load(model, path, source="torchvision"):
    """Fill a model with published weights; on an error it stays untouched.

    Where the file has another number of classes, class scores, box deltas and mask logits are put back to their
    initial values. Parts that the file does not have, such as the mask head in Faster R-CNN's, stay as they were. A
    printed line names them in both cases. Compile afterwards: an optimizer would keep momenta of the weights before.

    Args:
        model: `MaskRCNN` with a ResNet backbone.
        path: the file, see `files.read` for its formats.
        source: whose names it has, one of `SOURCES`.

    Returns:
        `Report` of how many variables were filled, which layers were not, and which arrays were left out.

    Raises:
        DataError: a ValueError in one line that names the file, for one that cannot be read, names that are left over
            on either side, shapes that do not fit, numbers that are not finite, or a backbone that is no ResNet.
        ValueError: for an unknown source.
    """
    return fill(model, files.read(path, source), source, path)
