"""A view of the first stage of a model: the RPN's output for every anchor, and the proposals."""

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.backend.network import Network
from keras_maskrcnn.heads.detection import OUTPUTS, Detection
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.heads.proposals import select_proposals
from keras_maskrcnn.inference.predictor import Detector, Predictor


class FirstStage(Detector, keras.Model):
    """A view of a `MaskRCNN` that shares its layers and ends with the proposals, all of which have the label 1.

    It predicts on the batches of `data.batches`; `detect` takes images of any size and returns all proposals unless a
    threshold is given. Weights that the model learns later take effect here too.

    Args:
        model: `MaskRCNN`.
        max_proposals: proposals per image, P.
        classify: whether the box head classifies the proposals, without refining them.
        nms_iou: overlap above which the lower-scored one of two proposals is removed; None takes the model's.
        pre_nms: candidates per level; None takes the model's, or `max_proposals` where that is more.
    """

    def __init__(self, model, max_proposals=100, classify=False, nms_iou=None, pre_nms=None):
        super().__init__(name=f"{model.name}_first_stage", dtype="float32", autocast=False)
        self.model, self.classify = model, classify
        options = model.rpn.proposals
        self.limits = {
            "pre_nms": pre_nms or max(max_proposals, options.pre_nms),
            "post_nms": max_proposals,
            "min_size": options.min_size,
        }
        nms_iou = options.nms_iou if nms_iou is None else nms_iou
        self.detection = Detection(0.0, nms_iou, max_proposals, candidates=max_proposals)
        self.schema = (*OUTPUTS, *((Output("probabilities"),) if classify else ()))
        self._network = Network(self)
        self.built = True

    @property
    def num_classes(self):
        """The model's classes without background."""
        return self.model.num_classes

    @property
    def image_type(self):
        """The type of the images that the model takes."""
        return self.model.image_type

    @property
    def predictor(self):
        """`inference.predictor.Predictor` of the view."""
        return Predictor(self._network, self.model.placement, self.schema, self.detection)

    def anchors(self, canvas):
        """All anchors for a canvas (height, width), levels one after the other: float32 `[A, 4]`."""
        return np.concatenate(self.model.rpn.anchors.boxes(canvas, self.model.strides))

    def call(self, inputs, training=False):
        """Proposals, and the RPN's output for every anchor.

        Args:
            inputs: dict of `images` `[B, H, W, C]` and `sizes` `[B, 2]`, see `MaskRCNN.call`; `nms_iou` overrides the
                view's.
            training: for Keras; batch normalisation always uses the stored statistics here.

        Returns:
            dict of `boxes` float32 `[B, P, 4]` in canvas pixels; `scores` float32 `[B, P]`, objectness in [0, 1],
            descending; `labels` int32 `[B, P]`, 1; `valid` bool `[B, P]`; `logits` float32 `[B, A]` and `deltas`
            float32 `[B, A, 4]` of all anchors in the order of `anchors`; with `classify`, `probabilities` float32
            `[B, P, K + 1]`, background first.
        """
        model, sizes = self.model, ops.cast(inputs["sizes"], "float32")
        features = model.features(inputs["images"], sizes)
        logits, deltas = model.rpn(list(features.values()))
        anchors = model.rpn.anchors.boxes(ops.shape(inputs["images"])[1:3], model.strides)
        nms_iou = inputs.get("nms_iou", self.detection.nms_iou)
        boxes, scores, valid = select_proposals(logits, deltas, anchors, sizes, nms_iou=nms_iou, **self.limits)
        found = {
            "boxes": boxes,
            "labels": ops.cast(valid, "int32"),
            "scores": ops.where(valid, ops.sigmoid(scores), 0.0),
            "valid": valid,
            "logits": ops.concatenate(logits, axis=1),
            "deltas": ops.concatenate(deltas, axis=1),
        }
        if self.classify:
            regions, _ = model.box_head.classify([features[level] for level in model.region_levels], boxes)
            found["probabilities"] = ops.softmax(regions, axis=-1)
        return found
