"""Evaluation: COCO scores by pycocotools; precision, recall and confusion matrix at one score threshold; the score of
the Data Science Bowl 2018; and scores of the stages inside a detector (`anchor_report`, `proposal_recall`,
`region_report`).
"""

from keras_maskrcnn.evaluation.coco import (
    add_sample,
    coco_ground_truth,
    coco_results,
    coco_scores,
    encode_mask,
    for_json,
    score_detections,
)
from keras_maskrcnn.evaluation.dsb import dsb_score
from keras_maskrcnn.evaluation.predictions import predictions
from keras_maskrcnn.evaluation.regions import (
    anchor_counts,
    anchor_report,
    anchor_roles,
    candidate_counts,
    proposal_recall,
    region_report,
)
from keras_maskrcnn.evaluation.report import best_threshold, format_report, format_scores, precision_recall

__all__ = [
    "add_sample",
    "anchor_counts",
    "anchor_report",
    "anchor_roles",
    "best_threshold",
    "candidate_counts",
    "coco_ground_truth",
    "coco_results",
    "coco_scores",
    "dsb_score",
    "encode_mask",
    "for_json",
    "format_report",
    "format_scores",
    "precision_recall",
    "predictions",
    "proposal_recall",
    "region_report",
    "score_detections",
]
