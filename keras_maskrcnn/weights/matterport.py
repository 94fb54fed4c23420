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

import numpy as np

from keras_maskrcnn.weights import rows

SIGNATURE = ("mrcnn_",)
EPSILON = 1e-3
RPN_DELTA_SCALE = (0.1, 0.1, 0.2, 0.2)


def name_map(model, names):
    """Rows for all variables of ours that the file fills.

    Args:
        model: MaskRCNN.
        names: the file's names, which make no difference here: the format has one style.
    """
    del names
    yield from _backbone(model)
    if model.neck:
        yield from _fpn(model)
    yield from _rpn(model)
    yield from _box_head(model)
    yield from _mask_head(model)


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


# Transforms -----------------------------------------------------------------------------------------------------------


def shifted_mean(mean, bias):
    """Moving mean that takes in the bias of the convolution before it."""
    return mean - bias


def folded_kernel(kernel, gamma, variance):
    """Kernel, outputs on the last axis, that takes in the scale of the batch norm behind it."""
    return kernel * (gamma / np.sqrt(variance + EPSILON))


def folded_bias(bias, gamma, beta, mean, variance):
    """Bias that takes in the offset of the batch norm behind it."""
    return (bias - mean) * (gamma / np.sqrt(variance + EPSILON)) + beta


def region_kernel(kernel, gamma, variance):
    """Convolution over a whole region `[y, x, C, out]`, norm folded in, as dense `[(y, x, C), out]`."""
    return folded_kernel(kernel, gamma, variance).reshape(-1, kernel.shape[-1])


def object_logit(pairs):
    """(background, object) of each anchor on the last axis to their difference."""
    return pairs[..., 1::2] - pairs[..., 0::2]


def reordered_deltas(deltas):
    """(dy, dx, dh, dw) groups on the last axis to (dx, dy, dw, dh)."""
    return deltas.reshape(*deltas.shape[:-1], -1, 4)[..., [1, 0, 3, 2]].reshape(deltas.shape)


def anchor_deltas(deltas):
    """The same for the RPN, whose outputs are in units of `RPN_DELTA_SCALE`."""
    return reordered_deltas(deltas) * np.resize(np.float32(RPN_DELTA_SCALE), deltas.shape[-1])


def deconvolution(kernel):
    """Keras' `[y, x, out, in]` to `[in, y, x, out]`."""
    return kernel.transpose(3, 0, 1, 2)


# Parts ----------------------------------------------------------------------------------------------------------------


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
            yield rows.Row(getattr(unit.norm, kind), name, sources, shifted_mean if mean else rows.same)


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
        yield from _layer(conv, name, f"fpn_c{number}p{number}" if side == "lateral" else f"fpn_p{number}")


def _rpn(model):
    for i, conv in enumerate(model.rpn.convs):
        yield from _layer(conv, f"rpn.convs.{i}", "rpn_conv_shared" if i == 0 else f"rpn_conv_shared{i + 1}")
    yield from _layer(model.rpn.objectness, "rpn.objectness", "rpn_class_raw", object_logit, object_logit)
    yield from _layer(model.rpn.deltas, "rpn.deltas", "rpn_bbox_pred", anchor_deltas, anchor_deltas)


def _box_head(model):
    head = model.box_head
    for i, dense in enumerate(head.hidden):
        name, conv, norm = f"box_head.hidden.{i}", f"mrcnn_class_conv{i + 1}", f"mrcnn_class_bn{i + 1}"
        yield from _folded(dense, name, conv, norm, region_kernel)
    yield from _layer(head.classes, "box_head.classes", "mrcnn_class_logits")
    yield from _layer(head.deltas, "box_head.deltas", "mrcnn_bbox_fc", reordered_deltas, reordered_deltas)


def _mask_head(model):
    head = model.mask_head
    for i, conv in enumerate(head.convs):
        yield from _folded(
            conv, f"mask_head.convs.{i}", f"mrcnn_mask_conv{i + 1}", f"mrcnn_mask_bn{i + 1}", folded_kernel
        )
    yield from _layer(head.deconvolution, "mask_head.deconvolution", "mrcnn_mask_deconv", deconvolution)
    yield from _layer(head.logits, "mask_head.logits", "mrcnn_mask")


def _layer(layer, name, theirs, kernel=rows.same, bias=rows.same):
    """Rows of a layer with kernel and bias."""
    yield rows.Row(layer.kernel, f"{name}.kernel", (f"{theirs}/kernel",), kernel)
    if layer.bias is not None:
        yield rows.Row(layer.bias, f"{name}.bias", (f"{theirs}/bias",), bias)


def _folded(layer, name, conv, norm, kernel):
    """Rows of a layer that takes in the batch norm behind it."""
    gamma, beta, mean, variance = (f"{norm}/{kind}" for kind in rows.NORM)
    yield rows.Row(layer.kernel, f"{name}.kernel", (f"{conv}/kernel", gamma, variance), kernel)
    if layer.bias is not None:
        sources = (f"{conv}/bias", gamma, beta, mean, variance)
        yield rows.Row(layer.bias, f"{name}.bias", sources, folded_bias)
