"""matterport/Mask_RCNN's names (`mask_rcnn_coco.h5` and what was trained from it): Keras 2, ResNet-50 or -101 with FPN.

Exact, for frozen statistics, which is how those networks run:

- biases of the backbone's convolutions go into the moving means of the norms behind them: norm(x + b) with mean m is
  norm(x) with mean m - b;
- the heads' batch norms (epsilon 1e-3) become part of the convolution or dense layer before them;
- the RPN's two scores an anchor, background and object, become one logit, their difference: a softmax over two is the
  sigmoid of that;
- deltas turn from (dy, dx, dh, dw) to (dx, dy, dw, dh). The RPN's are multiplied by 0.1, 0.1, 0.2, 0.2
  (`RPN_BBOX_STD_DEV`); the box head's equal factor is our `delta_weights` of 10, 10, 5, 5;
- the 7×7 convolution over a region is our first dense layer, row by row.

So features, scores, deltas and masks equal matterport's, given the same pixels and the same regions, with the preset
`mask_rcnn_resnet101_fpn_matterport`: epsilon 1e-3, the stride in the first 1×1 convolution, pooling padded at the
bottom and on the right, anchors of width / height (0.5, 1, 2), which are our height / width (2, 1, 0.5), and levels
chosen by rounding (`canonical_size` 224 / √2). Weights have COCO's 80 classes.

Not exact, since matterport does these otherwise:

- Regions: it takes one bilinear sample a bin (`crop_and_resize`), the outer ones on the box's very edge, and scales
  coordinates by (cells - 1) / (pixels - 1), which at the far corner of the canvas is almost one cell less than ours.
- Boxes are normalised by (side - 1), and their far edge is drawn in by one pixel: a side s that grows by a factor f
  becomes (s - 1) f + 1 pixels, where ours becomes s f. Results are rounded to whole pixels.
- Proposals are the best 1000 after NMS of the best 6000 over all levels together; ours are chosen level by level.
- A region yields its best class alone; ours yields every class whose score passes the threshold. Deltas have no cap.
- A picture is enlarged without smoothing, never reduced below its own size unless it exceeds 1024 pixels, centred in a
  square of 1024 and surrounded by black before the mean is taken off; ours lies at the top left, and its surroundings
  are zero after that.
- A mask is resized to the whole-pixel box before the threshold.

Names and formulas after mrcnn/model.py, anchors and resizing after mrcnn/utils.py.
"""

import re

from keras_maskrcnn.weights import rows

SIGNATURE = ("mrcnn_",)


def name_map(model, names):
    """Rows for all variables of ours that the file fills.

    Args:
        model: MaskRCNN.
        names: the file's names, which make no difference here: the format has one style.
    """
    yield from _backbone(model)
    if model.neck:
        yield from _fpn(model)
    for head in model.all_heads().values():
        yield from head.published("matterport", names)


def plain(name):
    """A name without Keras' marks: ":0", and "_1" behind a layer that was the second of its name in the session."""
    return re.sub("_[0-9]+/", "/", name.removesuffix(":0"))


def spare(name):
    """Whether an array has no place in Mask R-CNN; there is none such."""
    del name
    return False


def conflict(model, names):
    """None: names and shapes say all that this source's weights depend on and a check could see."""
    return


def num_classes(arrays):
    """Classes without background of the file's heads; None for a file without them."""
    scores = arrays.get("mrcnn_class_logits/bias")
    return None if scores is None else scores.size - 1


def _backbone(model):
    for unit in rows.backbone_units(model.backbone):
        conv, norm = _unit_names(unit)
        yield rows.Row(unit.conv.kernel, f"backbone.{unit.conv.name}.kernel", (f"{conv}/kernel",), rows.same)
        for kind in rows.NORM:
            if not hasattr(unit.norm, kind):
                continue
            mean = kind == "moving_mean"
            sources = (f"{norm}/{kind}", f"{conv}/bias") if mean else (f"{norm}/{kind}",)
            name = f"backbone.{unit.norm.name}.{kind}"
            yield rows.Row(getattr(unit.norm, kind), name, sources, rows.shifted_mean if mean else rows.same)


def _unit_names(unit):
    """A unit's convolution and norm, such as ("res3a_branch2a", "bn3a_branch2a")."""
    if unit.stage == 0:
        return "conv1", "bn_conv1"
    branch = "1" if unit.part == "shortcut" else "2" + "abc"[int(unit.part) - 1]
    place = f"{unit.stage + 1}{chr(ord('a') + unit.block - 1)}_branch{branch}"
    return f"res{place}", f"bn{place}"


def _fpn(model):
    for side, level, name, conv, _ in rows.fpn_layers(model.fpn):
        number = level[1:]
        yield from rows.keras_layer(conv, name, f"fpn_c{number}p{number}" if side == "lateral" else f"fpn_p{number}")
