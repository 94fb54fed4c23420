"""Non-maximum suppression by the implementation that fits the graph being traced."""

from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.ops import nms as pure


def nms(boxes, scores, iou_threshold, max_output, groups=None, valid=None):
    """Greedy suppression with the arguments and the result of `ops.nms.nms`.

    On TensorFlow's dynamic lowering, `max_output` may also be an int32 scalar tensor: the result then has a dynamic
    number of columns, and one traced graph serves all values.
    """
    if backend.lowering("nms") == "fixed_point":
        return pure.nms(boxes, scores, iou_threshold, max_output, groups, valid)
    from keras_maskrcnn.backend.tensorflow import nms as combined

    return combined.nms(*pure.prepare(boxes, scores, valid), iou_threshold, max_output, groups)


def fast_nms(boxes, scores, iou_threshold, max_output, groups=None, valid=None):
    """Suppression in one step, with the arguments and the result of `ops.nms.fast_nms`.

    On TensorFlow's dynamic lowering, `max_output` may also be an int32 scalar tensor, as for `nms`.
    """
    if backend.lowering("nms") == "fixed_point":
        return pure.fast_nms(boxes, scores, iou_threshold, max_output, groups, valid)
    from keras_maskrcnn.backend.tensorflow import nms as dynamic

    return dynamic.fast_nms(*pure.prepare(boxes, scores, valid), iou_threshold, max_output, groups)


def nms_by_level(boxes, scores, iou_threshold, max_output, valid=None):
    """Greedy suppression within each level, with the arguments and the result of `ops.nms.nms_by_level`."""
    if backend.lowering("nms") == "fixed_point":
        return pure.nms_by_level(boxes, scores, iou_threshold, max_output, valid)
    level = ops.concatenate([ops.full_like(score, i, dtype="int32") for i, score in enumerate(scores)], axis=1)
    return nms(boxes, ops.concatenate(scores, axis=1), iou_threshold, max_output, level, valid)
