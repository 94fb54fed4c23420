"""Evaluation: COCO scores of boxes, masks and keypoints by pycocotools; precision, recall and confusion matrix at one
score threshold, and the best threshold; the error types of TIDE; calibration; boundary AP; the score of the Data
Science Bowl 2018; panoptic quality; mean IoU, accuracies and boundary F of label maps; `scores`, those that a model has
by its outputs; `explain`, all scores of instances in one pass of the model, with a report as an
HTML page; and scores of the stages inside a detector (`anchor_report`, `proposal_recall`, `region_report`).
"""

from keras_maskrcnn.evaluation.any_model import scores
from keras_maskrcnn.evaluation.boundary import boundary_iou
from keras_maskrcnn.evaluation.coco import boundary_scores, coco_scores, score_detections
from keras_maskrcnn.evaluation.coco_format import (
    add_sample,
    coco_ground_truth,
    coco_results,
    encode_mask,
    for_json,
)
from keras_maskrcnn.evaluation.collected import Collected, collect
from keras_maskrcnn.evaluation.dsb import dsb_score
from keras_maskrcnn.evaluation.errors import tide
from keras_maskrcnn.evaluation.explanation import explain, explained
from keras_maskrcnn.evaluation.panoptic import PanopticQuality, panoptic_quality
from keras_maskrcnn.evaluation.predictions import finds_objects, predictions
from keras_maskrcnn.evaluation.regions import (
    anchor_counts,
    anchor_report,
    anchor_roles,
    candidate_counts,
    proposal_recall,
    region_report,
)
from keras_maskrcnn.evaluation.reliability import calibration
from keras_maskrcnn.evaluation.report import best_f1, best_threshold, precision_recall
from keras_maskrcnn.evaluation.semantic import SemanticScores, semantic_scores
from keras_maskrcnn.evaluation.tables import format_explanation, format_report, format_scores

__all__ = [
    "Collected",
    "PanopticQuality",
    "SemanticScores",
    "add_sample",
    "anchor_counts",
    "anchor_report",
    "anchor_roles",
    "best_f1",
    "best_threshold",
    "boundary_iou",
    "boundary_scores",
    "calibration",
    "candidate_counts",
    "coco_ground_truth",
    "coco_results",
    "coco_scores",
    "collect",
    "dsb_score",
    "encode_mask",
    "explain",
    "explained",
    "finds_objects",
    "for_json",
    "format_explanation",
    "format_report",
    "format_scores",
    "panoptic_quality",
    "precision_recall",
    "predictions",
    "proposal_recall",
    "region_report",
    "score_detections",
    "scores",
    "semantic_scores",
    "tide",
]
