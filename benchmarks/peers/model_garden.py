"""TF Model Garden's Mask R-CNN (tf-models-official), its ResNet-50-FPN with torchvision's box head and frozen parts.

Differences remain: batch norm in the pyramid and in the heads, its RoIAlign and its NMS.
"""

import zlib

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import exp_factory
from official.vision import registry_imports  # noqa: F401  (registers the configurations)
from official.vision.dataloaders.maskrcnn_input import Parser
from official.vision.ops.mask_ops import paste_instance_masks
from official.vision.serving.detection import DetectionModule
from official.vision.tasks.maskrcnn import MaskRCNNTask

import peers

# Standard deviation of the outputs of these layers for inputs of order one, as in `tests/parity/generated.py`.
SPREAD = {"rpn-scores": 1.5, "rpn-boxes": 0.1, "detection-scores": 3.0, "detection-boxes": 0.5, "mask-logits": 6.0}
BACKGROUND = 4.0


def configuration(kind, size):
    """The library's COCO experiment with the network of torchvision, as far as its settings permit."""
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16" if "bfloat16" in kind else "float32")
    parameters = exp_factory.get_exp_config("maskrcnn_resnetfpn_coco")
    model = parameters.task.model
    model.input_size = [*size, 3]
    model.backbone.resnet.bn_trainable = False
    model.norm_activation.use_sync_bn = False
    model.detection_head.num_convs, model.detection_head.num_fcs = 0, 2
    model.detection_generator.pre_nms_score_threshold = peers.SCORE_THRESHOLD
    return parameters


def fill(model):
    """Random weights with features of order one and spread scores, so that there are detections."""
    for place, variable in enumerate(model.variables):
        if variable.shape.rank > 1:
            variable.assign(_kernel(variable.name, place, variable.shape))
        elif "detection-scores" in variable.name:
            variable.assign(np.eye(1, variable.shape[0])[0] * BACKGROUND)
    for block in model.backbone.layers:
        if hasattr(block, "_norm3"):
            block._norm3.gamma.assign(tf.fill(block._norm3.gamma.shape, 0.4))  # so that blocks do not add up


def _kernel(name, place, shape):
    """Kernel whose values sum to zero for each output: after a ReLU inputs have a common mean, which would dominate."""
    uniform = np.random.RandomState(zlib.crc32(f"{name} {place}".encode())).uniform(-1, 1, shape)
    inputs = tuple(range(len(shape) - 1))
    spread = next((spread for part, spread in SPREAD.items() if part in name), 2**0.5)
    return (uniform - uniform.mean(axis=inputs, keepdims=True)) * spread * (3 * shape[-1] / uniform.size) ** 0.5


def inference(kind, image):
    """One image at its own scale: the library's serving module, then its pasting of masks."""
    size = image.shape[:2]
    module = DetectionModule(configuration(kind, size), batch_size=1, input_image_size=list(size))
    serve = tf.function(module.serve)
    serve(image[None])  # creates the weights
    fill(module.model)

    def call():
        found = {name: value.numpy() for name, value in serve(tf.constant(image[None])).items()}
        count = int(found["num_detections"][0])
        top_left, bottom_right = np.split(
            found["detection_boxes"][0, :count] / np.tile(found["image_info"][0, 2], 2), 2, 1
        )
        boxes = np.concatenate([top_left[:, ::-1], (bottom_right - top_left)[:, ::-1]], axis=1)
        masks = paste_instance_masks(found["detection_masks"][0, :count].astype("float32"), boxes, *size)
        return {"detections": count, "mask_shape": list(masks.shape)}

    return call, 1


class Task(MaskRCNNTask):
    """The library's training task, which also counts the regions in the mask head."""

    mask_rois = 0

    def build_losses(self, outputs, labels, aux_losses=None):
        """The losses, unchanged."""
        self.mask_rois = int(np.prod(outputs["mask_outputs"].shape[:2]))
        return super().build_losses(outputs, labels, aux_losses)


def training(kind, x, y):
    """One step of SGD with momentum by the library's task; the input contains labelled anchors."""
    parameters = configuration(kind, x["images"].shape[1:3])
    parameters.task.losses.l2_weight_decay = 0.0
    parameters.task.model.mask_sampler.num_sampled_masks = peers.MASK_ROIS
    task = Task(parameters.task)
    model = task.build_model()
    fill(model)
    freeze(model.backbone)
    optimizer = tf_keras.optimizers.SGD(peers.RATE, momentum=peers.MOMENTUM)
    batch = parsed(parameters.task, x, y, "bfloat16" if "bfloat16" in kind else "float32")
    step = tf.function(lambda inputs: task.train_step(inputs, model, optimizer))

    def call():
        loss = step(batch)["loss"]
        return {"mask_rois": task.mask_rois, "loss": float(loss)}

    return call, 1


def freeze(backbone):
    """Freezes the stem and the first stage."""
    for layer in backbone.layers:
        layer.trainable = False
        if layer.name == "block_group_l2":
            return


def parsed(task, x, y, dtype):
    """The batch in the format of the library's input pipeline."""
    model = task.model
    parser = Parser(
        output_size=model.input_size[:2],
        min_level=model.min_level,
        max_level=model.max_level,
        num_scales=model.anchor.num_scales,
        aspect_ratios=model.anchor.aspect_ratios,
        anchor_size=model.anchor.anchor_size,
        include_mask=True,
        dtype=dtype,
    )
    parse = parser.parse_fn(is_training=True)
    height, width = model.input_size[:2]
    samples = []
    for image, boxes, labels in zip(x["images"], y["boxes"], y["labels"], strict=True):
        masks = np.zeros((len(boxes), height, width), "float32")
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = 1  # the objects fill their boxes
        decoded = {
            "image": image,
            "groundtruth_classes": labels.astype("int64"),
            "groundtruth_boxes": boxes[:, [1, 0, 3, 2]] / np.array([height, width] * 2, "float32"),
            "groundtruth_is_crowd": np.zeros(len(boxes), bool),
            "groundtruth_instance_masks": masks,
        }
        samples.append(parse({name: tf.constant(value) for name, value in decoded.items()}))
    return tf.nest.map_structure(lambda *values: tf.stack(values), *samples)
