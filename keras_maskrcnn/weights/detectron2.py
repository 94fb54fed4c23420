"""detectron2's names: the model zoo's Mask, Faster and Cascade R-CNN with FPN, C4 or DC5 (`model_final_….pkl`).

The map is exact: convolutions and dense layers are transposed as for torchvision, and

- the stem's input channels are reversed, because detectron2's networks take B, G, R and this library's R, G, B;
- detectron2 numbers classes from 0 with background last, this library from 1 with background 0: scores are rolled by
  one, and box deltas and masks, which have no background in detectron2, get zeros for it (neither network reads them);
- the RPN's outputs of a location, which detectron2 has by size, then ratio, are ordered by ratio, then size;
- without a pyramid the stages are named without `bottom_up`, and the fifth stage of C4 belongs to `roi_heads`.

Not loaded: `pixel_mean` and `pixel_std` (in B, G, R order; the preset has them) and the anchors, which are computed.
A file without a mask head leaves the model's unchanged.

The presets `mask_rcnn_resnet101_fpn_detectron2`, `mask_rcnn_resnet50_c4` and `cascade_mask_rcnn_resnet50_fpn` set the
conventions: the stride in the first 1×1 convolution, pixels that are not divided by a standard deviation, half-pixel
RoIAlign. detectron2 adapts the number of samples per bin to the size of the region; the sampling here is fixed, so RoI
features differ slightly.
Weights have COCO's 80 classes.

Names are from detectron2/modeling: backbone/resnet.py, backbone/fpn.py, proposal_generator/rpn.py,
roi_heads/box_head.py, fast_rcnn.py, cascade_rcnn.py and mask_head.py, meta_arch/semantic_seg.py (`sem_seg_head`, for
Panoptic FPN).
"""

from keras_maskrcnn.weights import rows

SIGNATURE = ("backbone.bottom_up.", "backbone.stem.")


def name_map(model, names):
    """Rows for all variables that the file fills.

    Args:
        model: MaskRCNN.
        names: the file's names; they determine whether there is a mask head.
    """
    yield from _backbone(model)
    if model.neck == "fpn":
        yield from _fpn(model)
    for head in model.all_heads().values():
        yield from head.published("detectron2", names)


def plain(name):
    """A name without the prefix `module.`, which `torch.nn.DataParallel` adds."""
    return name.removeprefix("module.")


def spare(name):
    """Whether an array is not a weight here: pixel statistics are in presets, anchors are computed."""
    return name in ("pixel_mean", "pixel_std") or name.startswith("proposal_generator.anchor_generator.")


def conflict(model, names):
    """None: a file of this source whose names and shapes fit has no further requirement that can be checked."""
    return


def num_classes(arrays):
    """Classes without background of the file's heads; None for a file without them."""
    names = (f"roi_heads.box_predictor.{stage}cls_score.bias" for stage in ("", "0."))  # one stage, or a cascade
    scores = next((arrays[name] for name in names if name in arrays), None)
    return None if scores is None else scores.size - 1


def stem_conv(kernel):
    """`[out, (B, G, R), y, x]` to `[y, x, (R, G, B), out]`."""
    return rows.torch_conv(kernel[:, ::-1])


def _backbone(model):
    for unit in rows.backbone_units(model.backbone):
        theirs = f"{_place(model, unit)}.{_unit_name(unit)}"
        kernel = rows.torch_conv if unit.stage else stem_conv
        yield from rows.torch_layer(unit.conv, f"backbone.{unit.conv.name}", theirs, kernel)
        yield from rows.torch_norm(unit.norm, f"backbone.{unit.norm.name}", f"{theirs}.norm")


def _place(model, unit):
    """Name of the module that a unit of the backbone is in."""
    if model.neck == "fpn":
        return "backbone.bottom_up"
    return "roi_heads" if model.neck == "c4" and unit.stage == 4 else "backbone"


def _unit_name(unit):
    """Name of a unit's convolution, such as "res3.0.conv1"; its norm is at `<name>.norm`."""
    if unit.stage == 0:
        return "stem.conv1"
    part = unit.part if unit.part == "shortcut" else f"conv{unit.part}"
    return f"res{unit.stage + 1}.{unit.block - 1}.{part}"


def _fpn(model):
    for side, level, name, conv, norm in rows.fpn_layers(model.fpn):
        theirs = f"backbone.fpn_{side}{level[1:]}"
        yield from rows.torch_layer(conv, name, theirs, rows.torch_conv)
        yield from rows.torch_norm(norm, f"fpn.{side}_norm.{level}", f"{theirs}.norm")
