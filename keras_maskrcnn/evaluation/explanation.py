"""All figures of a model on a data set from one pass of the model, and their report as an HTML page."""

import os

import numpy as np

from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.evaluation.coco import score_detections
from keras_maskrcnn.evaluation.collected import checked_kind, collect, scored_kinds
from keras_maskrcnn.evaluation.dsb import dsb_scores
from keras_maskrcnn.evaluation.errors import tide
from keras_maskrcnn.evaluation.per_image import per_image
from keras_maskrcnn.evaluation.reliability import calibration
from keras_maskrcnn.evaluation.report import best_f1, rates_at
from keras_maskrcnn.evaluation.sizes import size_scores
from keras_maskrcnn.heads.detection import Detection


def explain(
    model,
    dataset: Dataset,
    score_threshold: float = 0.5,
    kind: str | None = None,
    boundary: bool = False,
    html: str | os.PathLike | None = None,
    worst: int = 20,
    max_detections: int = 100,
    batch_size: int = 8,
    limit: int | None = None,
    progress: bool = False,
) -> dict:
    """Runs a model on a data set once and computes every figure of `evaluation` from its detections.

    Args:
        model: an object with `detect`, as `MaskRCNN` or `SavedModel`.
        dataset: any reader of samples.
        score_threshold: detections that score higher than this count in `report`, `sizes`, `per_image` and `dsb_score`;
            the other figures use all detections.
        kind: overlap of masks ("segm") or of boxes ("bbox") for all figures but COCO's; None takes masks if the model
            predicts them.
        boundary: also compute boundary AP, which takes about as long as all other figures together.
        html: file to write a page with plots, tables and the worst images to, without links to other files; or None.
        worst: number of images with errors on the page, see `per_image.worst`.
        max_detections: maximum number of detections per image.
        batch_size: images per batch of the network.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.

    Returns:
        dict, which `for_json` converts: the figures of `coco_scores`; `images`, `objects` and `detections`, their
        numbers; `kind`, `score_threshold`, `max_detections`; `report` (`precision_recall`), `best_f1`, `tide`,
        `calibration`, `sizes`, `per_image`; and `dsb_score` for a model with masks.

    Raises:
        ValueError: no image could be read, the classes of the model and the data set do not match, a number is outside
            its range, or masks are needed and the model predicts none.
    """
    Detection().limits(score_threshold, max_detections=max_detections)  # checks them
    for needed in (kind, "segm" if boundary else None):
        checked_kind(needed, scored_kinds(model))
    found = collect(model, dataset, 0.0, max_detections, batch_size, limit, progress)
    figures = explained(found, score_threshold, kind, boundary, max_detections)
    if html is not None:
        from keras_maskrcnn.evaluation.page import write_page  # imports matplotlib, which the figures do not need

        write_page(html, found, figures, dataset, worst)
    return figures


def explained(found, score_threshold=0.5, kind=None, boundary=False, max_detections=100):
    """The figures of `explain` from detections that were collected before."""
    kind = found.checked_kind(kind)
    kinds = (*found.scored, "boundary") if boundary else found.scored
    scores = score_detections(found.ground_truth, found.detections, kinds, max_detections)
    return {
        **scores,
        "images": len(found.ground_truth["images"]),
        "objects": int(sum(np.count_nonzero(~image.crowd) for image in found.images(kind))),
        "detections": len(found.detections),
        "kind": kind,
        "score_threshold": score_threshold,
        "max_detections": max_detections,
        "report": rates_at(found, score_threshold, kind=kind),
        "best_f1": best_f1(found, kind=kind),
        "tide": tide(found, kind),
        "calibration": calibration(found, kind),
        "sizes": size_scores(found, scores, kind, score_threshold=score_threshold),
        "per_image": per_image(found, kind, score_threshold=score_threshold),
        **({"dsb_score": dsb_scores(found, [score_threshold])[score_threshold]} if "segm" in found.kinds else {}),
    }
