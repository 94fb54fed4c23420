"""Test-time augmentation: detections in an image, its mirror image and other sizes of it, fused to one per object.

The views of an image are detected in one after another. Boxes are fused as by weighted boxes fusion (Solovyev et al.
2019, arXiv:1910.13302, section 3): from the highest score to the lowest, each detection joins the object of its class
whose first box it overlaps most, by an IoU above `SAME`, among the objects without a detection of its view; if there is
none, it is a new object. Then

- the box of an object is the mean of its boxes, weighted by their scores;
- its score is their sum divided by the number of views, so that what only some views contain scores lower;
- its mask is the mean of the mask probabilities, weighted by the scores, on the grid of the fused box;
- other outputs are those of the detection with the highest score; maps are those of the image itself.

In a mirror image left and right change places, also in the names of points: "left_eye" there is "right_eye" here.
"""

import math

import numpy as np

from keras_maskrcnn.data.coco_keypoints import mirrored
from keras_maskrcnn.heads.detection import ALL
from keras_maskrcnn.heads.outputs import Detections, inside_boxes, maps, of_objects, to_image
from keras_maskrcnn.inference.predictor import Detector, Predictor
from keras_maskrcnn.ops.masks import resample

SAME = 0.55  # of the paper's experiments


class TestTimeAugmentation(Detector):
    """A model whose `detect` and `detect_each` fuse the detections in several views of each image.

    It takes the arguments of the model's `detect`, also `tiles`, in which case the views are those of each tile. The
    time grows with the number of views and their areas. Evaluation takes it as a model.

    Args:
        model: a model with `predictor`, such as `MaskRCNN` or `SavedModel`.
        flip: whether each size of the image is also mirrored from left to right.
        scales: factors of the size at which the model sees images by its own rule; 1 is always among the views. A size
            of the network's input is limited by memory only.

    Attributes:
        class_names: as of the model.
        num_classes: as of the model.
        schema: as of the model.

    Raises:
        ValueError: there is no view besides the image itself, a scale is not positive, or a model that predicts points
            without names is to see mirror images.
    """

    __test__ = False  # the name is not that of a test

    def __init__(self, model, flip=True, scales=()):
        scales = tuple(dict.fromkeys((1.0, *map(float, scales))))
        if not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"scales={scales[1:]} must be positive numbers")
        if not flip and len(scales) == 1:
            raise ValueError("test-time augmentation needs flip=True or a scale other than 1")
        if flip and any(output.kind == "points" and output.names is None for output in model.schema):
            raise ValueError("flip=True needs names of the points, which tell left from right; give flip=False")
        if not of_objects(model.schema):
            raise ValueError(f"test-time augmentation fuses objects, and {model.name} finds none")
        self.class_names, self.num_classes, self.schema = model.class_names, model.num_classes, model.schema
        self.model, self.flip, self.scales = model, bool(flip), scales

    @property
    def predictor(self):
        """`Predictor` of the views."""
        return _Fused(self.model.predictor, self.flip, self.scales)


class _Fused(Predictor):
    """A `Predictor` whose detections in an image are fused from those of another in its views."""

    def __init__(self, predictor, flip, scales):
        super().__init__(predictor.network, predictor.placement, predictor.schema, predictor.detection)
        self._sizes = [
            Predictor(self.network, self.placement.scaled(scale), self.schema, self.detection) for scale in scales
        ]
        self._flip = flip

    def run(self, images, limits, rows, masks):
        """As `Predictor.run`, one image at a time."""
        # A fused score is at most that of a view, and mostly lower: objects near the threshold need all their views.
        low = limits._replace(score_threshold=min(limits.score_threshold, ALL))
        for image in images:
            views, schema = list(self._views(image, low, rows)), inside_boxes(of_objects(self.schema))
            found = fused(views, schema)
            keep = np.flatnonzero(found["scores"] > limits.score_threshold)[: limits.max_detections]
            found = {name: values[keep] for name, values in found.items()}
            found = to_image(schema, found, (1, 1), image.shape[:2], self.detection.paste, masks)
            yield Detections({**found, **{o.name: views[0][o.name] for o in maps(self.schema)}}, self.schema)

    def _views(self, image, limits, rows):
        """Yields the detections of each view in pixels of the image, masks as probabilities."""
        views = [image, np.ascontiguousarray(image[:, ::-1])] if self._flip else [image]
        for predictor in self._sizes:
            for found, is_mirrored in zip(
                predictor.run(views, limits, rows, "probabilities"), (False, True), strict=False
            ):
                yield _mirrored(found, image.shape[1]) if is_mirrored else found


def _mirrored(found, width):
    """Detections in the mirror image as those in the image, which is `width` pixels wide."""
    turn = {
        "values": lambda values: values,
        "boxes": lambda boxes: np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1),
        "points": lambda points: np.concatenate([width - points[..., :1], points[..., 1:]], axis=-1),
        "box_masks": lambda masks: masks[:, :, ::-1],
        "map": lambda values: values[:, ::-1],
    }
    turned = {output.name: turn[output.kind](found[output.name]) for output in found.schema}
    sides = {
        output.name: list(mirrored(output.names)) for output in found.schema if output.names and output.kind != "map"
    }
    return turned | {name: turned[name][:, order] for name, order in sides.items()}


def fused(views, schema):
    """Objects from the detections in the views of an image, see the module.

    Args:
        views: list of dicts of arrays `[n, ...]` by output name, in pixels of the image; those of the kind "box_masks"
            are probabilities `[n, m, m]` inside the boxes.
        schema: tuple of `heads.outputs.Output`.

    Returns:
        dict of arrays of the same names, by descending score.
    """
    rows = {o.name: np.concatenate([view[o.name] for view in views]) for o in schema}
    groups = _groups(rows, np.repeat(np.arange(len(views)), [len(view["scores"]) for view in views]))
    found = {name: values[[group[0] for group in groups]] for name, values in rows.items()}
    masks = [output.name for output in schema if output.kind == "box_masks"]
    for row, group in enumerate(groups):
        scores, boxes = rows["scores"][group], rows["boxes"][group]
        weights = scores / max(scores.sum(), 1e-9)
        found["boxes"][row], found["scores"][row] = weights @ boxes, scores.sum() / len(views)
        for name in masks:
            found[name][row] = np.tensordot(weights, resample(rows[name][group], boxes, found["boxes"][row]), axes=1)
    order = np.argsort(-found["scores"], kind="stable")
    return {name: values[order] for name, values in found.items()}


def _groups(rows, view):
    """Lists of the detections of each object, the one with the highest score first."""
    boxes, labels, groups = rows["boxes"], rows["labels"], []
    first, seen = np.zeros(len(view), int), np.zeros((len(view), view.max(initial=0) + 1), bool)
    for i in np.argsort(-rows["scores"], kind="stable"):
        known = first[: len(groups)]
        free = (labels[known] == labels[i]) & ~seen[: len(groups), view[i]]
        overlap = np.where(free, _iou(boxes[known], boxes[i]), 0)
        best = int(overlap.argmax()) if overlap.max(initial=0) > SAME else len(groups)
        if best == len(groups):
            first[best] = i
            groups.append([])
        groups[best].append(int(i))
        seen[best, view[i]] = True
    return groups


def _iou(boxes, box):
    """IoU of boxes `[n, 4]` and a box `[4]`: `[n]`."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    both = np.maximum(sides, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return both / np.maximum(areas - both, 1e-9)
