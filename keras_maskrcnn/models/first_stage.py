"""The first stage of a model looked at by itself: what the RPN says of every anchor, and the boxes it proposes."""

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.models.detector import Detector
from keras_maskrcnn.ops.proposals import select_proposals


class FirstStage(Detector, keras.Model):
    """A view on a `MaskRCNN` that shares its layers and stops at the proposals.

    It predicts on the batches of `data.batches`, and `detect` takes pictures of any size, as the model's own does. It
    sees weights change as the model trains.

    Args:
        model: `MaskRCNN`.
        max_proposals: proposals an image, P.
        classify: whether the box head gives its opinion of the proposals as they are, without refining them.
        nms_iou: overlap from which the lower-scored one of two proposals goes; None takes the model's.
        pre_nms: candidates a level; None takes the model's, or `max_proposals` where that is more.
    """

    def __init__(self, model, max_proposals=100, classify=False, nms_iou=None, pre_nms=None):
        super().__init__(name=f"{model.name}_first_stage", dtype="float32", autocast=False)
        self.model, self.classify = model, classify
        self.limits = {
            **model.proposals.limits(training=False),
            "post_nms": max_proposals,
            "pre_nms": pre_nms or max(max_proposals, model.proposals.pre_nms),
        }
        if nms_iou is not None:
            self.limits["nms_iou"] = nms_iou
        self.detection, self.resize, self.image_size = model.detection, model.resize, model.image_size
        self._predict_functions = {}
        self.built = True

    @property
    def num_classes(self):
        """The model's classes without background."""
        return self.model.num_classes

    def canvas_stride(self):
        """Pixels of which the sides of a canvas are multiples."""
        return self.model.canvas_stride()

    def anchors(self, canvas):
        """All anchors for a canvas (height, width), levels one after the other: float32 `[A, 4]`."""
        return np.concatenate(self.model.anchors.boxes(canvas, self.model.strides))

    def call(self, inputs, training=False):
        """Proposals, and the RPN's answer for every anchor.

        Args:
            inputs: dict of `images` `[B, H, W, 3]` and `sizes` `[B, 2]`, see `MaskRCNN.call`.
            training: for Keras; batch normalisation always uses the stored statistics here.

        Returns:
            dict of `boxes` float32 `[B, P, 4]` in canvas pixels; `scores` float32 `[B, P]`, objectness in [0, 1],
            descending; `valid` bool `[B, P]`; `logits` float32 `[B, A]` and `deltas` float32 `[B, A, 4]` of all anchors
            in the order of `anchors`; with `classify`, `probabilities` float32 `[B, P, K + 1]`, background first.
        """
        model, sizes = self.model, ops.cast(inputs["sizes"], "float32")
        features = model.features(inputs["images"], sizes)
        logits, deltas = model.rpn(list(features.values()))
        anchors = model.anchors.boxes(ops.shape(inputs["images"])[1:3], model.strides)
        boxes, scores, valid = select_proposals(logits, deltas, anchors, sizes, **self.limits)
        found = {
            "boxes": boxes,
            "scores": ops.where(valid, ops.sigmoid(scores), 0.0),
            "valid": valid,
            "logits": ops.concatenate(logits, axis=1),
            "deltas": ops.concatenate(deltas, axis=1),
        }
        if self.classify:
            regions, _ = model.classify([features[level] for level in model.region_levels], boxes)
            found["probabilities"] = ops.softmax(regions, axis=-1)
        return found

    def detect_each(self, images, score_threshold=0.0, nms_iou=None, max_detections=None, batch_size=8):
        """Proposals for pictures, one result at a time.

        Args:
            images: list of uint8 `[H, W, 3]`.
            score_threshold: lowest objectness of what is returned.
            nms_iou: not used: NMS belongs to the view, see the class.
            max_detections: most proposals a picture; None returns all.
            batch_size: pictures that go through the network together.

        Yields:
            dict of `boxes` float32 `[n, 4]` in the picture's pixels, `labels` int32 `[n]` (all 1), `scores` float32
            `[n]`, and with `classify` `probabilities` float32 `[n, K + 1]`.
        """
        self.image_size = self.model.image_size
        for found in super().detect_each(images, score_threshold, None, None, batch_size):
            yield {name: values[:max_detections] for name, values in found.items()}

    def detect(self, image, score_threshold=0.0, nms_iou=None, max_detections=None, batch_size=8):
        """As `detect_each`, for one picture (a dict) or a list (a list of dicts)."""
        return super().detect(image, score_threshold, nms_iou, max_detections, batch_size)

    def _in_picture(self, batch, i, picture, score_threshold):
        keep, scale = self._kept(batch, i, picture, score_threshold)
        found = {
            "boxes": batch["boxes"][i][keep] * scale,
            "labels": np.ones(np.count_nonzero(keep), "int32"),
            "scores": batch["scores"][i][keep],
        }
        if self.classify:
            found["probabilities"] = batch["probabilities"][i][keep]
        return found
