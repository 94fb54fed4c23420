"""The score of the Data Science Bowl 2018 on nuclei.

As stated at https://www.kaggle.com/competitions/data-science-bowl-2018/overview/evaluation: at a threshold t, predicted
and true objects match if their IoU exceeds t, and an image scores TP / (TP + FP + FN). The score of an image is the
mean over t = 0.50, 0.55, … 0.95; that of a data set is the mean over its images. Classes are not told apart.

The competition takes no overlapping masks. Detections above a score threshold are therefore painted into one label
image, each pixel belonging to the detection with the highest score; one that keeps no pixel is left out. Of true masks
that overlap, which happens by a few pixels in the original files, the smaller one has the pixel. An object then
overlaps at most one object of the other side by more than half, so that matches need no assignment.
"""

import numpy as np

from keras_maskrcnn.data.run_lengths import decode
from keras_maskrcnn.evaluation.collected import collect

IOU_THRESHOLDS = np.arange(50, 100, 5) / 100


def dsb_score(model, dataset, score_threshold=0.5, max_detections=400, batch_size=8, limit=None, progress=False):
    """Runs a model on a data set and returns the score.

    Args:
        model: an object with `detect`, as `MaskRCNN`.
        dataset: any reader of samples.
        score_threshold: minimum score of a detection, 0..1; or a sequence of them, to find the best one on other images
            than those that the score is then reported for.
        max_detections: maximum number of detections per image.
        batch_size: images per batch of the network.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.

    Returns:
        float in 0..1; for a sequence, a dict from threshold to float.

    Raises:
        ValueError: no image could be read, or the classes of the model and the data set do not match.
    """
    thresholds = np.atleast_1d(score_threshold).tolist()
    found = collect(model, dataset, min(thresholds), max_detections, batch_size, limit, progress)
    means = dsb_scores(found, thresholds)
    return means[score_threshold] if np.ndim(score_threshold) == 0 else means


def dsb_scores(found, thresholds):
    """The score of detections that were collected before.

    Args:
        found: `Collected` with masks.
        thresholds: minimum scores of a detection.

    Returns:
        dict from threshold to float.
    """
    scores = []
    for image in found.images("segm"):
        size = image.image["height"], image.image["width"]
        objects = [row for row, crowd in zip(image.objects, image.crowd, strict=True) if not crowd]
        true, masks = (decode([row["segmentation"] for row in rows], size) for rows in (objects, image.detections))
        truth = label_image(true, -true.sum(axis=(1, 2)))
        kept = (image.scores > threshold for threshold in thresholds)
        scores.append([image_score(truth, label_image(masks[k], image.scores[k])) for k in kept])
    return dict(zip(thresholds, np.mean(scores, axis=0).tolist(), strict=True))


def label_image(masks, priority):
    """Paints masks into one image of labels.

    Args:
        masks: bool `[n, H, W]`.
        priority: `[n]`; of masks that overlap, the one with the highest priority has the pixel, the first of equals.

    Returns:
        int32 `[H, W]`: 1…n, the number of the mask; 0 for background.
    """
    labels = np.zeros(masks.shape[1:], np.int32)
    for index in np.argsort(-np.asarray(priority), kind="stable")[::-1]:
        labels[masks[index]] = index + 1
    return labels


def image_score(truth, predicted):
    """The score of one image: the mean of TP / (TP + FP + FN) over `IOU_THRESHOLDS`; 1 if there is no object at all.

    Args:
        truth: int `[H, W]`, the number of the object at each pixel, 0 for background; numbers may have gaps.
        predicted: the same for the predicted objects.
    """
    (truth, true_areas), (predicted, predicted_areas) = _numbered(truth), _numbered(predicted)
    size = len(true_areas), len(predicted_areas)
    common = np.bincount((truth * size[1] + predicted).ravel(), minlength=size[0] * size[1]).reshape(size)
    iou = common / (true_areas[:, None] + predicted_areas[None, :] - common)
    hits = (iou[1:, 1:, None] > IOU_THRESHOLDS).sum(axis=(0, 1))
    objects = size[0] + size[1] - 2  # without background
    return float(np.mean(hits / (objects - hits))) if objects else 1.0


def _numbered(labels):
    """Labels without gaps, background first even where it is absent; and the area of each, at least 1."""
    numbers, places = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
    places = places[:-1]
    return places, np.maximum(np.bincount(places, minlength=len(numbers)), 1)
