"""torchvision's names: Mask R-CNN, Faster R-CNN and Keypoint R-CNN with ResNet and FPN, and plain ResNet classifiers.

| file                                          | what is taken                                               |
|-----------------------------------------------|-------------------------------------------------------------|
| maskrcnn_resnet50_fpn, maskrcnn_…_v2          | everything, in the older (published) and in today's names   |
| fasterrcnn_resnet50_fpn, fasterrcnn_…_v2      | everything; our mask head stays as it was                   |
| keypointrcnn_resnet50_fpn                     | the same, without the keypoint head                         |
| resnet18, resnet34, resnet50, resnet101       | the backbone alone, without the classifier `fc`             |

The map is exact: arrays are moved and transposed, none is computed. What the network makes of them is up to the preset:
`mask_rcnn_resnet50_fpn` (its batch norm has the epsilon 0 that torchvision sets for its first COCO weights) or
`mask_rcnn_resnet50_fpn_v2`. COCO weights have 90 classes, COCO's category numbers with the gaps among them.

Names after torchvision/models/detection (faster_rcnn.py, mask_rcnn.py, rpn.py), and torchvision/ops for the pyramid.
Older files, the published ones among them, name the convolutions of pyramid, RPN and mask head in another way.
"""

from keras_maskrcnn.weights import rows

# Beginnings of names that no other source has.
SIGNATURE = ("backbone.body.", "layer1.0.")


def name_map(model, names):
    """Rows for all variables of ours that the file fills.

    Args:
        model: MaskRCNN.
        names: the file's names, which tell its style and which heads it has.
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
    """A name without the prefix that training on several GPUs puts before it."""
    return name.removeprefix("module.")


def spare(name):
    """Whether an array has no place in Mask R-CNN: a classifier's last layer, a keypoint head."""
    return name.startswith(("fc.", "roi_heads.keypoint"))


def conflict(model, names):
    """Why the file cannot be used with this model, though names and shapes fit; None if it can.

    Classifiers have channels whose variance is next to nothing: without an epsilon they would be blown up.
    """
    if "conv1.weight" in names and getattr(model.backbone, "norm_epsilon", None) == 0:
        return "a classifier's norms need norm_epsilon=1e-5 in `backbone`, this model has 0 (torchvision's for COCO_V1)"
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
    """A unit's convolution and norm, such as ("layer2.0.conv1", "layer2.0.bn1")."""
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
