"""Random arrays under published names, seeded by name, for networks of any width."""

import json
import pathlib
import zlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "torchvision_names.json"
BODY = "backbone.body."
NORM = ("weight", "bias", "running_mean", "running_var")
# Sizes that are not widths: the outputs for COCO, and of 15 anchors at a location.
OUTPUTS = (21, 54, 60, 80, 81, 91, 320, 364)


def torchvision_shapes(model):
    """Names and shapes of a torchvision `state_dict`, written by `golden/make_torchvision_names.py`.

    "maskrcnn_resnet18_fpn", which torchvision does not publish, is Mask R-CNN's heads on the body of `resnet18`.
    """
    golden = json.loads(GOLDEN.read_text())
    if model.startswith("fcn_"):
        body = {name: shape for name, shape in golden["resnet50"].items() if not name.startswith("fc.")}
        return {**{f"backbone.{name}": shape for name, shape in body.items()}, **golden[model]}
    if "rcnn" not in model:
        return golden[model]
    body = golden["resnet18" if "resnet18" in model else "resnet50"]
    shapes = {BODY + name: shape for name, shape in body.items() if not name.startswith("fc.")}
    for name, shape in golden[model.replace("18", "50")].items():
        lateral = "resnet18" in model and "inner_blocks" in name and len(shape) == 4
        shapes[name] = [shape[0], shape[1] // 4, 1, 1] if lateral else shape
    return shapes


def older_style(arrays):
    """The names of pyramid, RPN and mask head in torchvision's published files."""
    renamed = {"rpn.head.conv.0.0": "rpn.head.conv"}
    for i in range(4):
        renamed[f"backbone.fpn.inner_blocks.{i}.0"] = f"backbone.fpn.inner_blocks.{i}"
        renamed[f"backbone.fpn.layer_blocks.{i}.0"] = f"backbone.fpn.layer_blocks.{i}"
        renamed[f"roi_heads.mask_head.{i}.0"] = f"roi_heads.mask_head.mask_fcn{i + 1}"
    parts = ((name.rpartition("."), array) for name, array in arrays.items())
    return {f"{renamed.get(stem, stem)}.{kind}": array for (stem, _, kind), array in parts}


def detectron2_shapes(blocks=(3, 4, 6, 3), classes=80, neck="fpn", box_stages=None):
    """Names and shapes of a Mask R-CNN with ResNet and FPN, C4 or DC5 in detectron2's model zoo.

    With `box_stages` those of a Cascade R-CNN: the modules of the box head are lists, and deltas class-agnostic.
    """
    shapes, bottom_up = {}, "backbone.bottom_up." if neck == "fpn" else "backbone."

    def add(name, *shape, norm=False):
        shapes[f"{name}.weight"] = list(shape)
        if norm:
            shapes.update({f"{name}.norm.{kind}": [shape[0]] for kind in NORM})
        else:
            shapes[f"{name}.bias"] = [shape[0]]

    add(f"{bottom_up}stem.conv1", 64, 3, 7, 7, norm=True)
    inputs = 64
    for stage, count in enumerate(blocks, start=2):
        width = 2**stage * 16
        for i in range(count):
            place = "roi_heads." if neck == "c4" and stage == 5 else bottom_up
            block = f"{place}res{stage}.{i}."
            if i == 0:
                add(f"{block}shortcut", 4 * width, inputs, 1, 1, norm=True)
            add(f"{block}conv1", width, inputs, 1, 1, norm=True)
            add(f"{block}conv2", width, width, 3, 3, norm=True)
            add(f"{block}conv3", 4 * width, width, 1, 1, norm=True)
            inputs = 4 * width
        if neck == "fpn":
            add(f"backbone.fpn_lateral{stage}", 256, inputs, 1, 1)
            add(f"backbone.fpn_output{stage}", 256, 256, 3, 3)
    channels = {"fpn": 256, "c4": 1024, "dc5": 2048}[neck]
    levels, anchors = (5, 3) if neck == "fpn" else (1, 15)
    add("proposal_generator.rpn_head.conv", channels, channels, 3, 3)
    add("proposal_generator.rpn_head.objectness_logits", anchors, channels, 1, 1)
    add("proposal_generator.rpn_head.anchor_deltas", 4 * anchors, channels, 1, 1)
    units = 2048 if neck == "c4" else 1024
    for stage in [f".{i}" for i in range(box_stages)] if box_stages else [""]:
        if neck != "c4":
            add(f"roi_heads.box_head{stage}.fc1", 1024, 49 * channels)
            add(f"roi_heads.box_head{stage}.fc2", 1024, 1024)
        add(f"roi_heads.box_predictor{stage}.cls_score", classes + 1, units)
        add(f"roi_heads.box_predictor{stage}.bbox_pred", 4 if box_stages else 4 * classes, units)
    for i in range(1, 5) if neck != "c4" else ():
        add(f"roi_heads.mask_head.mask_fcn{i}", 256, channels if i == 1 else 256, 3, 3)
    add("roi_heads.mask_head.deconv", 2048 if neck == "c4" else 256, 256, 2, 2)  # [in, out, y, x]
    shapes["roi_heads.mask_head.deconv.bias"] = [256]
    add("roi_heads.mask_head.predictor", classes, 256, 1, 1)
    for name in ("pixel_mean", "pixel_std"):
        shapes[name] = [3, 1, 1]
    for i in range(levels):
        shapes[f"proposal_generator.anchor_generator.cell_anchors.{i}"] = [anchors, 4]
    return shapes


def semantic_shapes(classes=54):
    """Names and shapes of the semantic head of a Panoptic FPN there, class 0 being all things."""
    shapes = {}
    for level in range(2, 6):
        for i in range(max(1, level - 2)):
            conv = f"sem_seg_head.p{level}.{2 * i}"
            shapes[f"{conv}.weight"] = [128, 128 if i else 256, 3, 3]
            shapes |= {f"{conv}.norm.{kind}": [128] for kind in NORM[:2]}
    return {**shapes, "sem_seg_head.predictor.weight": [classes, 128, 1, 1], "sem_seg_head.predictor.bias": [classes]}


def narrowed(shapes, factor=4, outputs=OUTPUTS):
    """The shapes of a network with widths divided by `factor`; sizes below 16 and `outputs` are kept."""
    return {
        name: [side if side < 16 or side in outputs else side // factor for side in shape]
        for name, shape in shapes.items()
    }


def drawn(shapes):
    """An array for every name, scaled so that features are of order one; variances are positive."""
    return {name: _draw(name, shape) for name, shape in shapes.items()}


def lively(arrays):
    """Arrays with norm scales around 1 and kernels of He's gain: features of deep networks then depend on the image."""

    def scaled(name, array):
        if array.ndim == 1 and name.endswith(".weight"):
            return 1 + 0.3 * array
        return np.float32(np.sqrt(2)) * array if array.ndim > 1 else array

    return {name: scaled(name, array) for name, array in arrays.items()}


def _draw(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(7)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 10
    return (rng.normal(size=shape) / np.sqrt(fan_in)).astype("float32")
