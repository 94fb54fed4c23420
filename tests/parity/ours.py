"""This package's side of the comparison: the results of `torch_side.py`, with the same names and shapes."""

import cases
import generated
import numpy as np
import ours_yolact
import tensorflow as tf

from keras_maskrcnn import YOLACT, MaskRCNN
from keras_maskrcnn.heads.anchor_head import AnchorHead
from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.mask import MaskHead
from keras_maskrcnn.heads.prototypes import PrototypeHead
from keras_maskrcnn.heads.rpn import RPNHead
from keras_maskrcnn.heads.semantic_loss import SemanticLossHead
from keras_maskrcnn.training import SGD
from keras_maskrcnn.weights import assign, torchvision, yolact

PRESETS = {
    "v1": "mask_rcnn_resnet50_fpn",
    "v2": "mask_rcnn_resnet50_fpn_v2",
    "keypoint": "keypoint_rcnn_resnet50_fpn",
}
HEADS = {
    "v1": (RPNHead, BoxHead, MaskHead),
    "keypoint": (RPNHead, BoxHead, KeypointHead),
    **dict.fromkeys(generated.YOLACT, (AnchorHead, PrototypeHead, SemanticLossHead)),
}
LOSSES = {version: tuple(name for head in heads for name in head.LOSSES) for version, heads in HEADS.items()}
SOURCES = {version: yolact if version in generated.YOLACT else torchvision for version in generated.VERSIONS}
# Larger than any number of candidates: the samplers take all of them, so that nothing is random.
EVERYTHING = {"size": 10**6}


def build(version, resize, **options):
    """The preset's model with the generated weights; `resize` as in `cases`, for YOLACT a canvas (height, width)."""
    if version in generated.YOLACT:
        return ours_yolact.build(version, resize, **options)
    model = MaskRCNN.from_preset(PRESETS[version], num_classes=generated.CLASSES[version] - 1, resize=resize, **options)
    fill(model, version)
    return model


def fill(model, version):
    """Fill a model with the generated weights."""
    assign.fill(model, generated.weights(version), "torchvision", f"generated {version}")


def answers(model, image, theirs):
    """The compared arrays of one image.

    The heads take torchvision's regions, so that their outputs can be compared row by row; `proposals` and the
    detections are the model's own.

    Args:
        model: from `build`.
        image: uint8 `[H, W, 3]`.
        theirs: torchvision's arrays, of which `proposals`, `input_boxes` and `labels` are used; none are for YOLACT.

    Returns:
        dict of NumPy arrays.
    """
    if isinstance(model, YOLACT):
        return ours_yolact.answers(model, image)
    inputs = model.placement.batch([image], 1)
    images, sizes = (tf.constant(inputs[name]) for name in ("images", "sizes"))
    pyramid = model.features(images, sizes)
    logits, deltas = model.rpn(list(pyramid.values()))
    anchors = model.rpn.anchors.boxes(images.shape[1:3], model.strides)
    proposals, valid = model.rpn.propose(logits, deltas, anchors, sizes)
    features = [pyramid[level] for level in model.region_levels]
    class_logits, box_deltas = model.box_head.classify(features, tf.constant(theirs["proposals"])[None])
    arrays = {level: tensor[0] for level, tensor in pyramid.items()}
    arrays |= {"rpn_logits": tf.concat(logits, 1)[0], "rpn_deltas": tf.concat(deltas, 1)[0]}
    arrays |= {"proposals": proposals[0][valid[0]], "class_logits": class_logits[0]}
    arrays |= {"box_deltas": tf.reshape(box_deltas[0], (len(class_logits[0]), -1))}
    for head, name in zip(
        model.object_heads(), ("mask_logits",) if model.mask_head else ("keypoint_logits",), strict=True
    ):
        arrays[name] = _logits(head, features, theirs["input_boxes"], theirs["labels"])
    arrays = {name: tensor.numpy() for name, tensor in arrays.items()}
    return {**model.detect(image, score_threshold=0.05), **arrays}


def _logits(head, features, boxes, labels):
    regions = head.align.align_rows(features, boxes, np.zeros(len(boxes), "int32"))
    return head(regions, tf.constant(labels, "int32"))


def training_model(size, version="v1"):
    """A version for images of one size, with every candidate in the losses and the other side's mask targets."""
    if version in generated.YOLACT:
        return ours_yolact.training_model(size, version)
    limits = {"training_pre_nms": cases.TRAINING_PRE_NMS, "training_post_nms": cases.TRAINING_POST_NMS[version]}
    masks = {"mask_stage": {"targets": "roi_align"}} if version == "v1" else {}
    return build(
        version,
        {"shorter": min(size), "longer": max(size)},
        proposals=limits,
        rpn_sampling=EVERYTHING,
        box_sampling=EVERYTHING,
        **masks,
    )


def training(batch, steps=cases.STEPS, version="v1", **compile):
    """Losses, gradients, and the losses of some steps of SGD.

    Args:
        batch: from `cases.training_cases`.
        steps: number of steps.
        version: one of `LOSSES`.
        **compile: passed to the model's `compile`.

    Returns:
        dict: `losses` float64 `[steps, L]` before each step, in the order of `LOSSES`; `gradient/NAME`, of the first
        step, for every trainable variable, in torch's names and layout.
    """
    inputs = padded(batch)
    model = training_model(batch["images"].shape[1:3], version)
    arrays = {f"gradient/{name}": g for name, g in gradients(model, inputs, version).items()}
    model.compile(SGD(cases.RATES[version], momentum=cases.MOMENTUM, weight_decay=cases.DECAY), **compile)
    losses = []
    for _ in range(steps):
        model.reset_metrics()
        terms = model.train_on_batch(inputs, return_dict=True)
        losses.append([float(terms[name]) for name in LOSSES[version]])
    return {"losses": np.array(losses), **arrays}


def gradients(model, inputs, version="v1"):
    """Gradients of the sum of all losses for the trainable variables, in torch's names and layout."""
    with tf.GradientTape() as tape:
        loss = model.total_loss(model(inputs, training=True))
    found = tape.gradient(loss, [v.value for v in model.trainable_weights])
    found = [tf.convert_to_tensor(g).numpy() for g in found]
    return in_torch_layout(model, {v.path: g for v, g in zip(model.trainable_weights, found, strict=True)}, version)


def padded(batch):
    """A batch of `cases.training_cases` in the model's format: instances padded to one number."""
    images = batch["images"]
    count, rows = len(images), max(len(labels) for labels in batch["labels"])
    truth = {
        "boxes": np.zeros((count, rows, 4), "float32"),
        "labels": np.zeros((count, rows), "int32"),
        "valid": np.zeros((count, rows), "bool"),
        "crowd": np.zeros((count, rows), "bool"),
    }
    for i, labels in enumerate(batch["labels"]):
        used = slice(len(labels))
        truth["boxes"][i, used], truth["labels"][i, used] = batch["boxes"][i], labels
        truth["valid"][i, used] = True
        truth["crowd"][i, used] = batch["crowd"][i] if "crowd" in batch else False
        for name, factor in (("masks", 255), ("keypoints", 1)):
            if name in batch:
                values = batch[name][i] * np.array(factor, batch[name][i].dtype)
                truth.setdefault(name, np.zeros((count, rows, *values.shape[1:]), values.dtype))[i, used] = values
    sizes = np.tile(np.array(images.shape[1:3], "float32"), (count, 1))
    return {"images": images, "sizes": sizes, **truth}


def in_torch_layout(model, arrays, version="v1"):
    """Arrays by the paths of our variables in torch's names and layout.

    Args:
        model: from `training_model`.
        arrays: dict of arrays by path.
        version: of the model.

    Returns:
        dict of arrays by the names of the other side.
    """
    shapes = generated.shapes(version)
    return {
        row.sources[0]: _undone(row.transform, arrays[row.variable.path], shapes[row.sources[0]])
        for row in SOURCES[version].name_map(model, shapes)
        if row.variable.path in arrays
    }


def _undone(transform, array, shape):
    """The inverse of `transform`, a permutation of values, applied to `array`."""
    origin = transform(np.arange(np.prod(shape), dtype="int64").reshape(shape))
    undone = np.empty(array.size, array.dtype)
    undone[origin.ravel()] = array.ravel()
    return undone.reshape(shape)
