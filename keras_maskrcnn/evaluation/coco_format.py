"""Samples and detections as COCO's dictionaries, and figures as JSON."""

import math

import numpy as np
from pycocotools import mask as mask_tools

from keras_maskrcnn.data import coco_keypoints
from keras_maskrcnn.data.cropped_masks import CroppedMasks
from keras_maskrcnn.data.run_lengths import encode_mask


def coco_ground_truth(samples, class_names):
    """COCO dictionary of an iterable of samples: image ids 1…n in their order, category ids 1…K."""
    categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
    truth = {"images": [], "annotations": [], "categories": categories}
    for sample in samples:
        add_sample(truth, sample)
    return truth


def add_sample(truth, sample, annotations=None, number=None):
    """Appends one sample to a dictionary from `coco_ground_truth`.

    Args:
        truth: the dictionary, changed in place.
        sample: a sample. Its `image_id` is used only with `annotations`, and only if it is a number, as COCOeval
            requires.
        annotations: its annotations from `Dataset.coco_annotations`; None takes those of the sample's arrays.
        number: id of the image without annotations; None for the number of images, from 1.

    Returns:
        int: the image id of the sample in the dictionary; `number`, or the id in the COCO file.
    """
    height, width = sample["image"].shape[:2]
    image_id = len(truth["images"]) + 1 if number is None else number
    if annotations is not None and not isinstance(sample["image_id"], str):
        image_id = sample["image_id"]  # the order of ids decides between equal scores
    truth["images"].append({"id": image_id, "height": height, "width": width, "file_name": str(sample["source"])})
    for annotation in _annotations(sample) if annotations is None else annotations:
        number = len(truth["annotations"]) + 1  # from 1: COCOeval reads a match with id 0 as no match
        truth["annotations"].append({"id": number, "image_id": image_id, **annotation})
    return image_id


def _annotations(sample):
    """Yields the annotations of a sample's arrays."""
    points = [coco_keypoints.records(sample[field.name]) for field in coco_keypoints.named(sample.get("fields", ()))]
    for index, (box, label, mask, crowd) in enumerate(
        zip(sample["boxes"], sample["labels"], np.asarray(sample["masks"]), sample["crowd"], strict=True)
    ):
        run_lengths = encode_mask(mask)
        yield {
            "category_id": int(label),
            "bbox": _to_xywh(box),
            "area": float(mask_tools.area(run_lengths)),
            "iscrowd": int(crowd),
            "segmentation": run_lengths,
            **(points[0][index] if points else {}),
        }


def coco_results(detections, image_ids, category_ids=None):
    """Detections in COCO's result format, for `json.dump` and `score_detections`.

    Args:
        detections: list of dicts from `MaskRCNN.detect`, one per image; `masks` may be absent.
        image_ids: one id per image.
        category_ids: category ids of the labels 1…K (COCO's own ids have gaps); None uses the labels as ids.

    Returns:
        list of dicts: `image_id`, `category_id`, `bbox` [x, y, width, height], `score`; `segmentation`, a
        compressed run-length code whose `counts` is text; `keypoints`, a list of x, y, 1 of each, where pixels have
        whole numbers at their centres, as in COCO's files; and further values and points in the schema of the
        detections, by name.
    """
    results = []
    for found, image_id in zip(detections, image_ids, strict=True):
        schema = [output for output in getattr(found, "schema", ()) if output.name in found]
        masks = next((found[output.name] for output in schema if output.is_mask), found.get("masks"))
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
            if any((output.name, output.kind) == (coco_keypoints.NAME, "points") for output in schema):
                result[coco_keypoints.NAME] = coco_keypoints.flat(found[coco_keypoints.NAME][index])
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
