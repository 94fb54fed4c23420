"""COCO scores for any reader: the ground truth is built in memory, pycocotools computes the scores.

The ground truth of a COCO file is that of the file: its boxes, its `area`, and annotations that samples leave out. An
annotation that cannot be read is ignored: detections that overlap it are neither right nor wrong.

The scores of boxes and masks are the twelve figures of the COCO detection challenge
(https://cocodataset.org/#detection-eval): average precision over IoU 0.50:0.05:0.95, at 0.50, at 0.75, for small (< 32²
px), medium and large (> 96² px) objects, and average recall with 1, 10 and 100 detections per image and by size. Those
of keypoints are the ten figures of `evaluation.oks`. All are read from COCOeval's own tables.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.evaluation import oks
from keras_maskrcnn.evaluation.boundary import BoundaryEval
from keras_maskrcnn.evaluation.collected import KINDS, collect

# name: (table of COCOeval, IoU threshold or None for the mean of all ten, areas, which of three detection limits)
FIGURES = {
    "AP": ("precision", None, "all", 2),
    "AP50": ("precision", 0.5, "all", 2),
    "AP75": ("precision", 0.75, "all", 2),
    "APs": ("precision", None, "small", 2),
    "APm": ("precision", None, "medium", 2),
    "APl": ("precision", None, "large", 2),
    "AR1": ("recall", None, "all", 0),
    "AR10": ("recall", None, "all", 1),
    "AR100": ("recall", None, "all", 2),
    "ARs": ("recall", None, "small", 2),
    "ARm": ("recall", None, "medium", 2),
    "ARl": ("recall", None, "large", 2),
}
SCORED = (*KINDS, "boundary", oks.KIND)
# Figures of each class.
PER_CLASS = ("AP", "AP50", "AR100")


def figures_of(kind):
    """Figures of a kind, as `FIGURES`, and the names of those of each class."""
    return (oks.FIGURES, oks.PER_CLASS) if kind == oks.KIND else (FIGURES, PER_CLASS)


def coco_scores(
    model,
    dataset: Dataset,
    kinds: Sequence[str] | None = None,
    score_threshold: float = 0.0,
    max_detections: int = 100,
    batch_size: int = 8,
    limit: int | None = None,
    progress: bool = False,
    group=None,
) -> dict:
    """Runs a model on a data set and returns the COCO scores.

    Args:
        model: an object with `detect`, as `MaskRCNN`.
        dataset: any reader of samples.
        kinds: overlaps to score, any of "bbox", "segm", "boundary" (the smaller of mask IoU and boundary IoU, see
            `evaluation.boundary`) and "keypoints" (OKS, see `evaluation.oks`); None for boxes, masks and keypoints, if
            the model predicts them and the data set has them.
        score_threshold: minimum score of a detection. AP integrates over all scores, so 0 gives the true value.
        max_detections: maximum number of detections per image. A number above 100 (microscope images with hundreds of
            nuclei) is also COCOeval's largest limit, and `AR100` and every AP are then at this limit.
        batch_size: images per batch of the network; few more samples are in memory at the same time.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.
        group: `backend.processes.Group` whose processes share the images out, see `collect`.

    Returns:
        dict: `bbox_AP`, `bbox_AP50`, … `segm_ARl` (12 per kind, 10 for keypoints, 0..1, NaN where no object of that
        size exists), and `per_class`: {class name: {"bbox_AP": …, "bbox_AP50": …, "bbox_AR100": …, "segm_AP": …}}.

    Raises:
        ValueError: no image could be read, a kind is unknown, or the model has another number of classes.

    Example:
        >>> from keras_maskrcnn import MaskRCNN, data, evaluation
        >>> untrained = MaskRCNN(3, {"name": "resnet10", "width": 8}, image_size=(64, 64))
        >>> scores = evaluation.coco_scores(untrained, data.Shapes(2, image_size=(64, 64)))
        >>> round(scores["segm_AP"], 1)
        0.0
    """
    found = collect(model, dataset, score_threshold, max_detections, batch_size, limit, progress, group)
    kinds = found.scored if kinds is None else kinds
    return score_detections(found.ground_truth, found.detections, kinds, max_detections)


def boundary_scores(found, max_detections=100):
    """Boundary AP and the further COCO figures with the overlap of `evaluation.boundary`.

    Args:
        found: `Collected` with masks.
        max_detections: maximum number of detections per image that count, at least 100.

    Returns:
        dict: `boundary_AP`, `boundary_AP50`, … and `per_class`, as `coco_scores`.

    Raises:
        ValueError: there are no masks.
    """
    found.checked_kind("segm")
    return score_detections(found.ground_truth, found.detections, ("boundary",), max_detections)


def score_detections(ground_truth, detections, kinds=KINDS, max_detections=100, sigmas=None):
    """Scores detections of any origin.

    Args:
        ground_truth: a COCO dictionary (`images`, `annotations`, `categories`) from `coco_ground_truth` or from a COCO
            file.
        detections: a list in the COCO result format, see `coco_results`. `segmentation` may be absent if only "bbox" is
            scored, and `bbox` if only "segm" is.
        kinds: any of "bbox", "segm", "boundary" and "keypoints".
        max_detections: maximum number of detections per image that count, at least 100; 20 for keypoints.
        sigmas: σ of each keypoint; None for `oks.default_sigmas`.

    Returns:
        dict of scores, as `coco_scores`.

    Raises:
        ValueError: a kind is unknown, a detection belongs to an image that is not in the ground truth, or numbers of
            keypoints differ.
    """
    if unknown := set(kinds) - set(SCORED):
        raise ValueError(f"kinds must be among {SCORED}, got {sorted(unknown)}")
    unknown_images = {found["image_id"] for found in detections} - {image["id"] for image in ground_truth["images"]}
    if unknown_images:
        raise ValueError(f"detections on images that the ground truth does not have: {sorted(unknown_images)[:5]}")
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    scores, per_class = {}, {name: {} for name in names.values()}
    for kind in kinds:
        evaluator = _evaluate(ground_truth, detections, kind, max_detections, sigmas)
        figures_of_kind, of_each_class = figures_of(kind)
        for figure, where in figures_of_kind.items():
            scores[f"{kind}_{figure}"] = _figure(evaluator, *where)
        for column, category_id in enumerate(evaluator.params.catIds):
            for name in of_each_class:
                value = _figure(evaluator, *figures_of_kind[name], classes=[column])
                per_class[names[category_id]][f"{kind}_{name}"] = value
    return {**scores, "per_class": per_class}


def _evaluate(ground_truth, detections, kind, max_detections, sigmas):
    """Runs COCOeval without its printed progress and returns it with its tables filled."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = [_as_truth(annotation, kind) for annotation in ground_truth["annotations"]]
        if kind == oks.KIND:
            annotations = oks.as_truth(annotations, detections)
        truth = _indexed(ground_truth, annotations)
        found = _indexed(ground_truth, [_as_annotation(f, number, kind) for number, f in enumerate(detections, 1)])
        if kind == oks.KIND:
            evaluator = oks.evaluator(truth, found, sigmas)
        else:
            evaluator = BoundaryEval(truth, found) if kind == "boundary" else COCOeval(truth, found, kind)
            evaluator.params.maxDets = [1, 10, max(100, max_detections)]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def _indexed(ground_truth, annotations):
    """A COCO object from memory; `COCO.loadRes` does the same, but fails for an empty list of detections."""
    coco = COCO()
    coco.dataset = {**ground_truth, "annotations": annotations}
    coco.createIndex()
    return coco


def _as_truth(annotation, kind):
    """A copy of an annotation; a crowd, which COCOeval ignores, if its overlap of this kind cannot be read."""
    overlap = kind if kind in ("bbox", oks.KIND) else "segm"
    return {**annotation, "iscrowd": 1} if overlap in annotation.get("unreadable", ()) else dict(annotation)


def _as_annotation(found, number, kind):
    """A detection as COCOeval expects it, with the area of the box, mask or keypoints, depending on the kind."""
    if kind == oks.KIND:
        overlap = oks.as_annotation(found)
    elif kind == "bbox":
        overlap = {"bbox": found["bbox"], "area": found["bbox"][2] * found["bbox"][3]}
    else:
        overlap = {"segmentation": found["segmentation"], "area": float(mask_tools.area(found["segmentation"]))}
    common = {key: found[key] for key in ("image_id", "category_id", "score")}
    return {"id": number, "iscrowd": 0, **common, **overlap}


def _figure(evaluator, table, iou, area, limit, classes=slice(None)):
    """The mean over one slice of a table; NaN if COCOeval has no value there (-1)."""
    values = evaluator.eval[table]  # precision [IoU, recall, class, area, limit]; recall [IoU, class, area, limit]
    if iou is not None:
        values = values[np.isclose(evaluator.params.iouThrs, iou)]
    values = values[..., evaluator.params.areaRngLbl.index(area), limit][..., classes]
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
