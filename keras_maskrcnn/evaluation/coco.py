"""COCO scores for any reader: the ground truth is built in memory, pycocotools computes the scores.

The ground truth of a COCO file is that of the file: its boxes, its `area`, and annotations that samples leave out. An
annotation that cannot be read is ignored: detections that overlap it are neither right nor wrong.

They are the twelve figures of the COCO detection challenge (https://cocodataset.org/#detection-eval): average precision
over IoU 0.50:0.05:0.95, at 0.50, at 0.75, for small (< 32² px), medium and large (> 96² px) objects, and average recall
with 1, 10 and 100 detections per image and by size. They are read from COCOeval's own tables.
"""

import contextlib
import io
import math

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from keras_maskrcnn.data.cropped_masks import CroppedMasks
from keras_maskrcnn.data.run_lengths import encode_mask
from keras_maskrcnn.evaluation.predictions import predictions

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
KINDS = ("bbox", "segm")


def coco_scores(
    model,
    dataset,
    kinds=None,
    score_threshold=0.0,
    max_detections=100,
    batch_size=8,
    limit=None,
    progress=False,
):
    """Runs a model on a data set and returns the COCO scores.

    Args:
        model: an object with `detect`, as `MaskRCNN`.
        dataset: any reader of samples.
        kinds: overlaps to score: "bbox", "segm" or both; None for those that the model predicts.
        score_threshold: minimum score of a detection. AP integrates over all scores, so 0 gives the true value.
        max_detections: maximum number of detections per image. A number above 100 (microscope images with hundreds of
            nuclei) is also COCOeval's largest limit, and `AR100` and every AP are then at this limit.
        batch_size: images per batch of the network; few more samples are in memory at the same time.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.

    Returns:
        dict: `bbox_AP`, `bbox_AP50`, … `segm_ARl` (12 per kind, 0..1, NaN where no object of that size exists), and
        `per_class`: {class name: {"bbox_AP": …, "segm_AP": …}}.

    Raises:
        ValueError: no image could be read, a kind is unknown, or the model has another number of classes.
    """
    kinds = scored_kinds(model) if kinds is None else kinds
    truth = coco_ground_truth([], dataset.class_names)
    results = []
    for sample, found in predictions(
        model, dataset, score_threshold, max_detections, batch_size=batch_size, limit=limit, progress=progress
    ):
        annotations = getattr(dataset, "coco_annotations", lambda _: None)(sample.get("image_id"))
        image_id = add_sample(truth, sample, annotations)
        # As run lengths, since the boolean masks of a thousand images would not fit in memory.
        results.extend(coco_results([found], [image_id]))
    return score_detections(truth, results, kinds, max_detections)


def scored_kinds(model):
    """The kinds of `coco_scores` that a model's schema allows; both for a model without a schema."""
    schema = getattr(model, "schema", None)
    predicted = {"boxes", "box_masks"} if schema is None else {output.kind for output in schema}
    return tuple(kind for kind, output in zip(KINDS, ("boxes", "box_masks"), strict=True) if output in predicted)


def score_detections(ground_truth, detections, kinds=KINDS, max_detections=100):
    """Scores detections of any origin.

    Args:
        ground_truth: a COCO dictionary (`images`, `annotations`, `categories`) from `coco_ground_truth` or from a COCO
            file.
        detections: a list in the COCO result format, see `coco_results`. `segmentation` may be absent if only "bbox" is
            scored, and `bbox` if only "segm" is.
        kinds: "bbox", "segm" or both.
        max_detections: maximum number of detections per image that count, at least 100.

    Returns:
        dict of scores, as `coco_scores`.

    Raises:
        ValueError: a kind is unknown, or a detection belongs to an image that is not in the ground truth.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"kinds must be among {KINDS}, got {sorted(unknown)}")
    unknown_images = {found["image_id"] for found in detections} - {image["id"] for image in ground_truth["images"]}
    if unknown_images:
        raise ValueError(f"detections on images that the ground truth does not have: {sorted(unknown_images)[:5]}")
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    scores, per_class = {}, {name: {} for name in names.values()}
    for kind in kinds:
        evaluator = _evaluate(ground_truth, detections, kind, max_detections)
        for figure, where in FIGURES.items():
            scores[f"{kind}_{figure}"] = _figure(evaluator, *where)
        for column, category_id in enumerate(evaluator.params.catIds):
            per_class[names[category_id]][f"{kind}_AP"] = _figure(evaluator, *FIGURES["AP"], classes=[column])
    return {**scores, "per_class": per_class}


def coco_ground_truth(samples, class_names):
    """COCO dictionary of an iterable of samples: image ids 1…n in their order, category ids 1…K."""
    categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
    truth = {"images": [], "annotations": [], "categories": categories}
    for sample in samples:
        add_sample(truth, sample)
    return truth


def add_sample(truth, sample, annotations=None):
    """Appends one sample to a dictionary from `coco_ground_truth`.

    Args:
        truth: the dictionary, changed in place.
        sample: a sample. Its `image_id` is used only with `annotations`, and only if it is a number, as COCOeval
            requires.
        annotations: its annotations from `Dataset.coco_annotations`; None takes those of the sample's arrays.

    Returns:
        int: the image id of the sample in the dictionary; a count from 1, or the id in the COCO file.
    """
    height, width = sample["image"].shape[:2]
    image_id = len(truth["images"]) + 1
    if annotations is not None and not isinstance(sample["image_id"], str):
        image_id = sample["image_id"]  # the order of ids decides between equal scores
    truth["images"].append({"id": image_id, "height": height, "width": width, "file_name": str(sample["source"])})
    for annotation in _annotations(sample) if annotations is None else annotations:
        number = len(truth["annotations"]) + 1  # from 1: COCOeval reads a match with id 0 as no match
        truth["annotations"].append({"id": number, "image_id": image_id, **annotation})
    return image_id


def _annotations(sample):
    """Yields the annotations of a sample's arrays."""
    for box, label, mask, crowd in zip(
        sample["boxes"], sample["labels"], np.asarray(sample["masks"]), sample["crowd"], strict=True
    ):
        run_lengths = encode_mask(mask)
        yield {
            "category_id": int(label),
            "bbox": _to_xywh(box),
            "area": float(mask_tools.area(run_lengths)),
            "iscrowd": int(crowd),
            "segmentation": run_lengths,
        }


def coco_results(detections, image_ids, category_ids=None):
    """Detections in COCO's result format, for `json.dump` and `score_detections`.

    Args:
        detections: list of dicts from `MaskRCNN.detect`, one per image; `masks` may be absent.
        image_ids: one id per image.
        category_ids: category ids of the labels 1…K (COCO's own ids have gaps); None uses the labels as ids.

    Returns:
        list of dicts: `image_id`, `category_id`, `bbox` [x, y, width, height], `score`; `segmentation`, a
        compressed run-length code whose `counts` is text; and further values and points in the schema of the
        detections, by name.
    """
    results = []
    for found, image_id in zip(detections, image_ids, strict=True):
        schema = [output for output in getattr(found, "schema", ()) if output.name in found]
        masks = next((found[output.name] for output in schema if output.kind == "box_masks"), found.get("masks"))
        further = [output.name for output in schema if output.kind in ("values", "points")]
        further = [name for name in further if name not in ("labels", "scores")]
        for index, (box, label, score) in enumerate(zip(found["boxes"], found["labels"], found["scores"], strict=True)):
            result = {
                "image_id": image_id,
                "category_id": int(label) if category_ids is None else category_ids[int(label) - 1],
                "bbox": _to_xywh(box),
                "score": float(score),
            }
            if masks is not None:
                cropped = isinstance(masks, CroppedMasks)
                result["segmentation"] = masks.encoded(index) if cropped else encode_mask(masks[index])
            result.update({name: found[name][index].tolist() for name in further})
            results.append(result)
    return results


def for_json(figures, digits=None):
    """Figures in the types of JSON: NumPy numbers and arrays become Python's, NaN and infinity become None.

    Args:
        figures: number, array, string or None, or dicts, lists and tuples of them. Keys of dicts become strings.
        digits: decimal places of floats; None keeps all.

    Returns:
        the same structure for `json.dumps`.
    """
    if isinstance(figures, dict):
        return {str(name): for_json(value, digits) for name, value in figures.items()}
    if isinstance(figures, np.ndarray | np.generic):
        figures = figures.tolist()
    if isinstance(figures, list | tuple):
        return [for_json(value, digits) for value in figures]
    if not isinstance(figures, float):
        return figures
    if not math.isfinite(figures):
        return None
    return figures if digits is None else round(figures, digits)


def _to_xywh(box):
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _evaluate(ground_truth, detections, kind, max_detections):
    """Runs COCOeval without its printed progress and returns it with its tables filled."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(ground_truth, [_as_truth(annotation, kind) for annotation in ground_truth["annotations"]])
        found = _indexed(ground_truth, [_as_annotation(f, number, kind) for number, f in enumerate(detections, 1)])
        evaluator = COCOeval(truth, found, kind)
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
    return {**annotation, "iscrowd": 1} if kind in annotation.get("unreadable", ()) else dict(annotation)


def _as_annotation(found, number, kind):
    """A detection as COCOeval expects it, with the area of the box or of the mask, depending on the kind."""
    if kind == "bbox":
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
