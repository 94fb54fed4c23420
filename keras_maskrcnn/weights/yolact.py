"""Names of YOLACT's authors (dbolya/yolact): models with ResNet-50, ResNet-101 or DarkNet-53.

| file                              | preset              |
|-----------------------------------|---------------------|
| yolact_resnet50_54_800000.pth     | `yolact_resnet50`   |
| yolact_base_54_800000.pth         | `yolact_resnet101`  |
| yolact_darknet53_54_800000.pth    | `yolact_darknet53`  |

The map is exact: arrays are transposed, not computed. The presets set the conventions that the weights depend on. The
files have COCO's 80 categories. The project lists the layers of its pyramid from C5 to C3.

Names are from the project's yolact.py and backbone.py. Its first files hold the stages of a ResNet twice, and layers of
the pyramid that are not used, which `load_weights` there deletes; here they are left out as well.
"""

import re

from keras_maskrcnn.backbones.darknet53 import DarkNet53
from keras_maskrcnn.weights import rows

# Prefixes of names that no other source uses.
SIGNATURE = ("prediction_layers.", "proto_net.")
HEAD = "prediction_layers.0"
SPARE = re.compile(r"backbone\.layer\d|fpn\.downsample_layers\.[2-9]|semantic_seg_conv")


def name_map(model, names):
    """Rows for all variables that the file fills.

    Args:
        model: YOLACT.
        names: the file's names.
    """
    yield from (_darknet if isinstance(model.backbone, DarkNet53) else _resnet)(model.backbone)
    yield from _pyramid(model.fpn)
    yield from _anchor_head(model.anchor_head)
    yield from _prototype_head(model.prototype_head)
    if model.pixel_head is not None and "semantic_seg_conv.weight" in names:
        yield from _conv(model.pixel_head.logits, "pixel_head.logits", "semantic_seg_conv")


def plain(name):
    """A name without the prefix `module.`, which `torch.nn.DataParallel` adds."""
    return name.removeprefix("module.")


def spare(name):
    """Whether an array can be left out: copies and unused layers of older files, and the layer for training only."""
    return SPARE.match(name) is not None


def conflict(model, names):
    """None: a file of this source whose names and shapes fit has no further requirement that can be checked."""
    return


def num_classes(arrays):
    """Classes without background of the file's head; None for a file without it."""
    logits, deltas = (arrays.get(f"{HEAD}.{name}_layer.bias") for name in ("conf", "bbox"))
    return None if logits is None or deltas is None else logits.size // (deltas.size // 4) - 1


def _conv(layer, name, theirs):
    return rows.torch_layer(layer, name, theirs, rows.torch_conv)


def _resnet(backbone):
    for unit in rows.backbone_units(backbone):
        names = rows.torch_unit_names(unit, f"layers.{unit.stage - 1}")
        yield from _unit(unit.conv, unit.norm, *names)


def _darknet(backbone):
    for conv in backbone.layers:
        unit, is_conv, _ = conv.name.rpartition("_conv")
        if is_conv:
            module = _darknet_module(unit)
            yield from _unit(conv, backbone.get_layer(f"{unit}_norm"), f"{module}.0", f"{module}.1")


def _darknet_module(unit):
    """Name of a unit's module, such as "layers.1.2.conv1" of "stage2_block2_1", the second block's first unit."""
    if unit == "stem":
        return "_preconv"
    stage, block, part = re.fullmatch(r"stage(\d)_(?:down|block(\d+)_(\d))", unit).groups()
    module = f"layers.{int(stage) - 1}.{block or 0}"
    return f"{module}.conv{part}" if block else module


def _unit(conv, norm, conv_name, norm_name):
    yield from _conv(conv, f"backbone.{conv.name}", f"backbone.{conv_name}")
    yield from rows.torch_norm(norm, f"backbone.{norm.name}", f"backbone.{norm_name}")


def _pyramid(fpn):
    for side, level, name, conv, _ in rows.fpn_layers(fpn):
        theirs = "lat_layers" if side == "lateral" else "pred_layers"
        yield from _conv(conv, name, f"fpn.{theirs}.{5 - int(level[1:])}")
    for level, conv in fpn.down_conv.items():
        yield from _conv(conv, f"fpn.down_conv.{level}", f"fpn.downsample_layers.{int(level[1:]) - 6}")


def _anchor_head(head):
    for i, conv in enumerate(head.stack.convs):
        yield from _conv(conv, f"anchor_head.stack.convs.{i}", f"{HEAD}.upfeature.{2 * i}")
    for ours, theirs in (("classes", "conf"), ("deltas", "bbox"), ("masks", "mask")):
        yield from _conv(getattr(head, ours), f"anchor_head.{ours}", f"{HEAD}.{theirs}_layer")


def _prototype_head(head):
    """Every convolution and the enlargement are followed by a ReLU, which the numbers count."""
    for i, conv in enumerate(head.stack.convs):
        yield from _conv(conv, f"prototype_head.stack.convs.{i}", f"proto_net.{2 * i}")
    after = 2 * len(head.stack.convs) + 2
    yield from _conv(head.enlarged.convs[0], "prototype_head.enlarged.convs.0", f"proto_net.{after}")
    yield from _conv(head.prototypes, "prototype_head.prototypes", f"proto_net.{after + 2}")
