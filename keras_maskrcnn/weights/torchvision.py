"""torchvision's names: Mask R-CNN, Faster R-CNN and Keypoint R-CNN with ResNet and FPN, and plain ResNet classifiers.

| file                                          | arrays loaded                                               |
|-----------------------------------------------|-------------------------------------------------------------|
| maskrcnn_resnet50_fpn, maskrcnn_…_v2          | all, under the older (published) or the current names       |
| fasterrcnn_resnet50_fpn, fasterrcnn_…_v2      | all; the model's mask head is unchanged                     |
| keypointrcnn_resnet50_fpn                     | all; without the keypoint head in a model that has none     |
| resnet18, resnet34, resnet50, resnet101       | the backbone, without the classifier `fc`                   |

The map is exact: arrays are transposed, not computed. The preset sets the conventions that the weights depend on:
`mask_rcnn_resnet50_fpn`, `keypoint_rcnn_resnet50_fpn` (batch norm with epsilon 0, as torchvision sets it for its first
COCO weights) or `mask_rcnn_resnet50_fpn_v2`. COCO weights have 90 classes, which are COCO's category numbers including
the unused ones; those with keypoints have persons only.

Names are from torchvision/models/detection (faster_rcnn.py, mask_rcnn.py, rpn.py) and torchvision/ops (pyramid). Older
files, including the published ones, use other names for the convolutions of the pyramid, the RPN and the mask head.
"""

from keras_maskrcnn.weights import rows

# Prefixes of names that no other source uses.
SIGNATURE = ("backbone.body.", "layer1.0.")


def name_map(model, names):
    """Rows for all variables that the file fills.

    Args:
        model: MaskRCNN.
        names: the file's names; they determine the naming style and the heads.
    """
    if "conv1.weight" in names:
        yield from _backbone(model, prefix="")
        return
    yield from _backbone(model, prefix="backbone.body.")
    if model.neck:
        yield from _fpn(model, names)
    for head in model.all_heads().values():
        yield from head.published("torchvision", names)


def plain(name):
    """A name without the prefix `module.`, which `torch.nn.DataParallel` adds."""
    return name.removeprefix("module.")


def spare(name):
    """Whether an array is not part of Mask R-CNN: a classifier's last layer, a keypoint head."""
    return name.startswith(("fc.", "roi_heads.keypoint"))


def conflict(model, names):
    """Why the file cannot be used with this model although names and shapes fit; None if it can.

    Classifiers have channels of almost zero variance, which a batch norm without epsilon amplifies.
    """
    if "conv1.weight" in names and getattr(model.backbone, "norm_epsilon", None) == 0:
        return "a classifier's norms need norm_epsilon=1e-5 in `backbone`; this model has 0 (torchvision's for COCO_V1)"
    return None


def num_classes(arrays):
    """Classes without background of the file's heads; None for a file without them."""
    scores = arrays.get("roi_heads.box_predictor.cls_score.bias")
    return None if scores is None else scores.size - 1


def _backbone(model, prefix):
    for unit in rows.backbone_units(model.backbone):
        conv, norm = (prefix + name for name in _unit_names(unit))
        yield from rows.torch_layer(unit.conv, f"backbone.{unit.conv.name}", conv, rows.torch_conv)
        yield from rows.torch_norm(unit.norm, f"backbone.{unit.norm.name}", norm)


def _unit_names(unit):
    """Names of a unit's convolution and norm, such as ("layer2.0.conv1", "layer2.0.bn1")."""
    if unit.stage == 0:
        return "conv1", "bn1"
    block = f"layer{unit.stage}.{unit.block - 1}"
    if unit.part == "shortcut":
        return f"{block}.downsample.0", f"{block}.downsample.1"
    return f"{block}.conv{unit.part}", f"{block}.bn{unit.part}"


def _fpn(model, names):
    for side, level, name, conv, norm in rows.fpn_layers(model.fpn):
        blocks = "inner_blocks" if side == "lateral" else "layer_blocks"
        block = f"backbone.fpn.{blocks}.{int(level[1:]) - 2}"
        yield from rows.torch_layer(conv, name, rows.present(names, f"{block}.0", block), rows.torch_conv)
        yield from rows.torch_norm(norm, f"fpn.{side}_norm.{level}", f"{block}.1")
