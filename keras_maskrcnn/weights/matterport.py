"""matterport/Mask_RCNN's names (`mask_rcnn_coco.h5` and files trained from it): Keras 2, ResNet-50 or -101 with FPN.

The map is exact for frozen batch statistics, which matterport's networks use:

- biases of the backbone's convolutions are subtracted from the moving means of the norms after them: norm(x + b) with
  mean m equals norm(x) with mean m - b;
- the heads' batch norms (epsilon 1e-3) are folded into the convolution or dense layer before them;
- the RPN's two scores per anchor, background and object, become one logit, their difference, whose sigmoid equals the
  softmax over the two;
- deltas are reordered from (dy, dx, dh, dw) to (dx, dy, dw, dh). The RPN's are multiplied by 0.1, 0.1, 0.2, 0.2
  (`RPN_BBOX_STD_DEV`); the same factors of the box head are the option `delta_weights`, 10, 10, 5, 5;
- the 7×7 convolution over a region becomes the first dense layer.

Features, scores, deltas and masks equal matterport's for the same pixels and the same regions, with the preset
`mask_rcnn_resnet101_fpn_matterport`: epsilon 1e-3, the stride in the first 1×1 convolution, pooling padded at the
bottom and on the right, anchors of width / height (0.5, 1, 2), here given as height / width (2, 1, 0.5), and levels
chosen by rounding (`canonical_size` 224 / √2). Weights have COCO's 80 classes.

Differences that remain, in matterport:

- RoI features use one bilinear sample per bin (`crop_and_resize`), the outer ones on the edge of the box. Coordinates
  are scaled by (cells - 1) / (pixels - 1), at the far corner of the canvas almost one cell less than here.
- Boxes are normalised by (side - 1) and their far edge is moved inwards by one pixel: a side s scaled by a factor f
  becomes (s - 1) f + 1 pixels; here it becomes s f. Results are rounded to whole pixels.
- Proposals are the best 1000 after NMS of the best 6000 of all levels together; here they are chosen per level.
- A region yields only its best class; here it yields every class whose score exceeds the threshold. Deltas are not
  clipped.
- An image is enlarged without smoothing, reduced only if it exceeds 1024 pixels, centred in a square of 1024 pixels,
  and padded with black before the mean is subtracted; here it lies at the top left, padded with zeros after that.
- A mask is resized to the whole-pixel box before the threshold.

Names and formulas are from mrcnn/model.py, anchors and resizing from mrcnn/utils.py.
"""

import re

from keras_maskrcnn.weights import rows

SIGNATURE = ("mrcnn_",)


def name_map(model, names):
    """Rows for all variables that the file fills.

    Args:
        model: MaskRCNN.
        names: the file's names; unused, because the format has one naming style.
    """
    yield from _backbone(model)
    if model.neck == "fpn":
        yield from _fpn(model)
    for head in model.all_heads().values():
        yield from head.published("matterport", names)


def plain(name):
    """A name without the suffixes that Keras adds: ":0", and "_1" for the second layer of a name in a session."""
    return re.sub("_[0-9]+/", "/", name.removesuffix(":0"))


def spare(name):
    """Whether an array is not part of Mask R-CNN: never."""
    del name
    return False


def conflict(model, names):
    """None: a file of this source whose names and shapes fit has no further requirement that can be checked."""
    return


def num_classes(arrays):
    """Classes without background of the file's heads; None for a file without them."""
    scores = arrays.get("mrcnn_class_logits/bias")
    return None if scores is None else scores.size - 1


def _backbone(model):
    for unit in rows.backbone_units(model.backbone):
        conv, norm = _unit_names(unit)
        yield rows.Row(unit.conv.kernel, f"backbone.{unit.conv.name}.kernel", (f"{conv}/kernel",), rows.same)
        yield from rows.keras_norm(unit.norm, f"backbone.{unit.norm.name}", norm, f"{conv}/bias")


def _unit_names(unit):
    """Names of a unit's convolution and norm, such as ("res3a_branch2a", "bn3a_branch2a")."""
    if unit.stage == 0:
        return "conv1", "bn_conv1"
    branch = "1" if unit.part == "shortcut" else "2" + "abc"[int(unit.part) - 1]
    place = f"{unit.stage + 1}{chr(ord('a') + unit.block - 1)}_branch{branch}"
    return f"res{place}", f"bn{place}"


def _fpn(model):
    for side, level, name, conv, _ in rows.fpn_layers(model.fpn):
        number = level[1:]
        yield from rows.keras_layer(conv, name, f"fpn_c{number}p{number}" if side == "lateral" else f"fpn_p{number}")
