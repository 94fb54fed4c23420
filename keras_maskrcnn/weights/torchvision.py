"""torchvision's names: Mask R-CNN, Faster R-CNN and Keypoint R-CNN with ResNet and FPN, FCN, and plain classifiers.

| file                                          | arrays loaded                                               |
|-----------------------------------------------|-------------------------------------------------------------|
| maskrcnn_resnet50_fpn, maskrcnn_…_v2          | all, under the older (published) or the current names       |
| fasterrcnn_resnet50_fpn, fasterrcnn_…_v2      | all; the model's mask head is unchanged                     |
| keypointrcnn_resnet50_fpn                     | all; without the keypoint head in a model that has none     |
| fcn_resnet50                                  | all; without `aux_classifier` in a model that has none      |
| resnet18 … resnet101, resnext50_32x4d, …      | the backbone, without the classifier `fc`                   |
| mobilenet_v2                                  | the backbone, without the classifier `classifier`           |
| detectors on `mobilenet_v2().features`        | all: backbone without pyramid, RPN and heads                |

The map is exact: arrays are transposed, not computed. The preset sets the conventions that the weights depend on:
`mask_rcnn_resnet50_fpn`, `keypoint_rcnn_resnet50_fpn` (batch norm with epsilon 0, as torchvision sets it for its first
COCO weights) or `mask_rcnn_resnet50_fpn_v2`. COCO weights have 90 classes, which are COCO's category numbers including
the unused ones; those with keypoints have persons only, and FCN's have the 20 of Pascal VOC. ResNeXts have the names
of ResNets; those of MobileNetV2 are from models/mobilenetv2.py.

Names are from torchvision/models/detection (faster_rcnn.py, mask_rcnn.py, rpn.py), torchvision/models/segmentation
(fcn.py, _utils.py) and torchvision/ops (pyramid). Older files, including the published ones, use other names for the
convolutions of the pyramid, the RPN and the mask head.
"""

import keras

from keras_maskrcnn.backbones.mobilenet_v2 import MobileNetV2
from keras_maskrcnn.weights import rows

# The bias of the last layer of an FCN.
PIXEL_SCORES = "classifier.4.bias"
# Prefixes of names that no other source uses.
SIGNATURE = ("backbone.body.", "backbone.layer1.0.", "layer1.0.", "features.0.")


def name_map(model, names):
    """Rows for all variables that the file fills.

    Args:
        model: MaskRCNN or FCN.
        names: the file's names; they determine the naming style and the heads.
    """
    mobile = isinstance(model.backbone, MobileNetV2)
    if _is_classifier(names):
        yield from _mobilenet(model, "features.") if mobile else _backbone(model, prefix="")
        return
    body = "backbone." if _without_body(model, names) else "backbone.body."
    yield from _mobilenet(model, body) if mobile else _backbone(model, prefix=body)
    if model.neck == "fpn":
        yield from _fpn(model, names)
    for head in model.all_heads().values():
        yield from head.published("torchvision", names)


def plain(name):
    """A name without the prefix `module.`, which `torch.nn.DataParallel` adds."""
    return name.removeprefix("module.")


def spare(name):
    """Whether a model may lack an array: a classifier's last layer, a keypoint head, an auxiliary classifier."""
    return name.startswith(("fc.", "classifier.", "aux_classifier.", "roi_heads.keypoint"))


def conflict(model, names):
    """Why the file cannot be used with this model although names and shapes fit; None if it can.

    Classifiers have channels of almost zero variance, which a batch norm without epsilon amplifies.
    """
    if not _is_classifier(names):
        return None if hasattr(model, "neck") else f"holds a detector; a {type(model).__name__} takes classifiers only"
    if getattr(model.backbone, "norm_epsilon", None) == 0:
        return "a classifier's norms need norm_epsilon=1e-5 in `backbone`; this model has 0 (torchvision's for COCO_V1)"
    return None


def num_classes(arrays):
    """Classes without background of the file's heads; None for a file without them."""
    scores = arrays.get("roi_heads.box_predictor.cls_score.bias", arrays.get(PIXEL_SCORES))
    return None if scores is None else scores.size - 1


def _without_body(model, names):
    """Whether the file has the backbone's names without `body.`: those of an FCN, or of a MobileNetV2 alone."""
    mobile = isinstance(model.backbone, MobileNetV2) and model.neck != "fpn"
    return mobile or (PIXEL_SCORES in names and not any(name.startswith("backbone.body.") for name in names))


def _is_classifier(names):
    return "conv1.weight" in names or "features.0.0.weight" in names


def _mobilenet(model, prefix):
    """Rows of a MobileNetV2, whose modules are numbered: the stem, the blocks, the last convolution."""
    backbone, modules = model.backbone, {}
    layers = {layer.name for layer in backbone.layers}
    for conv in backbone.layers:
        unit, is_conv, _ = conv.name.rpartition("_conv")
        if not is_conv:
            continue
        block, _, part = unit.rpartition("_")
        module = f"{prefix}{modules.setdefault(unit if part == 'last' else block, len(modules))}"
        names = _mobilenet_names(module, part, expands=f"{block}_expand_conv" in layers)
        kernel = rows.torch_depthwise if isinstance(conv, keras.layers.DepthwiseConv2D) else rows.torch_conv
        yield from rows.torch_layer(conv, f"backbone.{conv.name}", names[0], kernel)
        norm = backbone.get_layer(f"{unit}_norm")
        yield from rows.torch_norm(norm, f"backbone.{norm.name}", names[1])


def _mobilenet_names(module, part, expands):
    """Names of a unit's convolution and norm, such as ("features.2.conv.1.0", "features.2.conv.1.1").

    The first block does not expand, so that its other units have the numbers 0 and 1.
    """
    if part not in ("expand", "depthwise", "project"):
        return f"{module}.0", f"{module}.1"
    place = ("expand", "depthwise", "project").index(part) - (not expands)
    if part == "project":
        return f"{module}.conv.{place}", f"{module}.conv.{place + 1}"
    return f"{module}.conv.{place}.0", f"{module}.conv.{place}.1"


def _backbone(model, prefix):
    for unit in rows.backbone_units(model.backbone):
        conv, norm = (prefix + name for name in rows.torch_unit_names(unit, f"layer{unit.stage}"))
        yield from rows.torch_layer(unit.conv, f"backbone.{unit.conv.name}", conv, rows.torch_conv)
        yield from rows.torch_norm(unit.norm, f"backbone.{unit.norm.name}", norm)


def _fpn(model, names):
    for side, level, name, conv, norm in rows.fpn_layers(model.fpn):
        blocks = "inner_blocks" if side == "lateral" else "layer_blocks"
        block = f"backbone.fpn.{blocks}.{int(level[1:]) - 2}"
        yield from rows.torch_layer(conv, name, rows.present(names, f"{block}.0", block), rows.torch_conv)
        yield from rows.torch_norm(norm, f"fpn.{side}_norm.{level}", f"{block}.1")
