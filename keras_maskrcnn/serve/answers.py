"""From detections to what a client gets: JSON, or a PNG file of the overlay."""

import io

import numpy as np
from PIL import Image

from keras_maskrcnn import visualize
from keras_maskrcnn.data.cropped_masks import CroppedMasks, crop_of
from keras_maskrcnn.data.rings import polygons
from keras_maskrcnn.data.run_lengths import encode_mask
from keras_maskrcnn.evaluation.coco_format import for_json
from keras_maskrcnn.heads.outputs import maps

PIXEL_DIGITS, SCORE_DIGITS = 2, 4
OWN = ("boxes", "labels", "scores")  # outputs with a place of their own in an object
FURTHER = ("values", "points")  # kinds of outputs that an object has under their names


def result(served, size, computed, masks="polygons"):
    """One image's detections as JSON values.

    Args:
        served: `served.Served`.
        size: (height, width) of the image.
        computed: `batching.Computed`.
        masks: "polygons", "rle" or "none".

    Returns:
        dict, see `schemas.Result`.
    """
    found = computed.found
    answer = {"model": served.name, "width": size[1], "height": size[0]}
    answer["objects"] = [_object(served, found, row, masks) for row in range(len(found.get("labels", ())))]
    for output in maps(found.schema):
        names = None if served.finds_objects else served.class_names
        answer[output.name] = [_region(found[output.name] == label, label, names) for label in _labels(found, output)]
    seconds = {"queue": computed.queue, "network": computed.network}
    return {**answer, "seconds": for_json(seconds, SCORE_DIGITS)}


def _object(served, found, row, masks):
    label, box = int(found["labels"][row]), found["boxes"][row]
    answer = {
        "label": label,
        "class": _name(label, served.class_names),
        "score": for_json(found["scores"][row], SCORE_DIGITS),
        "box": for_json(box, PIXEL_DIGITS),
        "area": for_json((box[2] - box[0]) * (box[3] - box[1]), PIXEL_DIGITS),
    }
    for output in found.schema:
        if output.is_mask:
            answer |= _mask(found[output.name], row, masks)
        elif output.name not in OWN and output.kind in FURTHER:
            answer[output.name] = for_json(found[output.name][row], SCORE_DIGITS)
    return answer


def _mask(values, row, masks):
    """Area and outline of one mask."""
    crop = crop_of(values, row)
    answer = {"area": int(np.count_nonzero(crop.mask))}
    if masks == "polygons":
        answer["segmentation"] = polygons(crop.mask, (crop.left, crop.top))
    elif masks == "rle":
        cropped = isinstance(values, CroppedMasks)
        answer["segmentation"] = values.encoded(row) if cropped else encode_mask(values[row])
    return answer


def _labels(found, output):
    return [label for label in np.unique(found[output.name]).tolist() if label]


def _region(mask, label, names):
    return {
        "label": label,
        "class": _name(label, names),
        "area": int(np.count_nonzero(mask)),
        "segmentation": encode_mask(mask),
    }


def _name(label, names):
    return names[label - 1] if names and label <= len(names) else str(label)


def overlay(image, found, class_names):
    """The detections drawn on the image, as `predict` draws them: bytes of a PNG file; small images are enlarged."""
    drawn = visualize.draw(image, found, class_names, scale=visualize.fitting_scale(image))
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
