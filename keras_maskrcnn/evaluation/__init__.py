"""Evaluation: COCO figures refereed by pycocotools, and precision, recall and confusion at one working point."""

from keras_maskrcnn.evaluation.coco import (
    add_sample,
    coco_ground_truth,
    coco_results,
    coco_scores,
    encode_mask,
    score_detections,
)
from keras_maskrcnn.evaluation.predictions import predictions
from keras_maskrcnn.evaluation.report import format_report, format_scores, precision_recall

__all__ = [
    "add_sample",
    "coco_ground_truth",
    "coco_results",
    "coco_scores",
    "encode_mask",
    "format_report",
    "format_scores",
    "precision_recall",
    "predictions",
    "score_detections",
]
