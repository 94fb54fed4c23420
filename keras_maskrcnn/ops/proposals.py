"""From dense predictions to a fixed number of boxes: RPN proposals and final detections."""

from keras import ops

from keras_maskrcnn.backend.nms import nms
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import rows


def select_proposals(logits, deltas, anchors, sizes, pre_nms, post_nms, nms_iou, min_size):
    """The RPN's best boxes: top scores of each level, decoded, clipped, thinned by NMS within the level.

    Args:
        logits: list (levels) of float32 `[B, A_l]`.
        deltas: list of float32 `[B, A_l, 4]`.
        anchors: list of float32 `[A_l, 4]`.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.
        pre_nms: candidates a level that enter NMS.
        post_nms: proposals an image.
        nms_iou: overlap from which the lower-scored box goes.
        min_size: both sides of a box must be this many pixels or more.

    Returns:
        (boxes, scores, valid): float32 `[B, P, 4]`, best first; float32 `[B, P]`, objectness logits; bool `[B, P]`,
        False for slots that stayed empty, where the others are 0.
    """
    best = [_best_of_level(*level, pre_nms) for level in zip(logits, deltas, anchors, strict=True)]
    scores = ops.concatenate([score for score, _ in best], axis=1)
    boxes = box_ops.clip(ops.concatenate([box for _, box in best], axis=1), sizes)
    level = ops.concatenate([ops.full_like(score, i, dtype="int32") for i, (score, _) in enumerate(best)], axis=1)
    keep, valid = nms(
        boxes,
        scores,
        nms_iou,
        min(post_nms, scores.shape[1] or post_nms),
        groups=level,
        valid=box_ops.larger_than(boxes, min_size),
    )
    return ops.where(valid[..., None], rows(boxes, keep), 0.0), ops.where(valid, rows(scores, keep), 0.0), valid


def _best_of_level(logits, deltas, anchors, limit):
    static, dynamic = logits.shape[1], ops.shape(logits)[1]
    scores, index = ops.top_k(logits, min(limit, static) if static else ops.minimum(limit, dynamic))
    return scores, box_ops.decode(rows(deltas, index), ops.take(ops.convert_to_tensor(anchors), index, axis=0))


def select_detections(
    probabilities, boxes, valid, sizes, score_threshold, nms_iou, max_detections, candidates, min_size=1e-2
):
    """The final boxes: every class of every region is a candidate, thinned by NMS within its class.

    Args:
        probabilities: float32 `[B, P, K + 1]`, softmax with background first.
        boxes: float32 `[B, P, K + 1, 4]`, refined for each class.
        valid: bool `[B, P]`, False for empty proposal slots.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.
        score_threshold: detections score higher than this.
        nms_iou: overlap from which the lower-scored box of the same class goes.
        max_detections: detections an image, D.
        candidates: highest number of (region, class) pairs that enter NMS.
        min_size: both sides of a box must be this many pixels or more.

    Returns:
        (boxes, scores, labels, valid, region): float32 `[B, D, 4]`, float32 `[B, D]` in descending order, int32
        `[B, D]` of 1…K, bool `[B, D]`, int32 `[B, D]` in 0…P-1, the region that each box was refined from; empty slots
        hold 0.
    """
    regions, classes = probabilities.shape[1], probabilities.shape[2] - 1
    scores = ops.where(valid[..., None], probabilities[..., 1:], 0.0)
    limit = min(candidates, regions * classes)
    scores, pair = ops.top_k(ops.reshape(scores, (-1, regions * classes)), limit)
    pair = ops.cast(pair, "int32")
    label = pair % classes + 1
    boxes = ops.reshape(boxes, (-1, regions * (classes + 1), 4))
    boxes = box_ops.clip(rows(boxes, pair // classes * (classes + 1) + label), sizes)
    usable = ops.logical_and(scores > score_threshold, box_ops.larger_than(boxes, min_size))
    keep, kept = nms(boxes, scores, nms_iou, min(max_detections, limit), groups=label, valid=usable)
    return (
        ops.where(kept[..., None], rows(boxes, keep), 0.0),
        ops.where(kept, rows(scores, keep), 0.0),
        ops.where(kept, rows(label, keep), 0),
        kept,
        ops.where(kept, rows(pair // classes, keep), 0),
    )
