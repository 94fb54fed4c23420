"""The scores of any model: of objects by COCO's rules, or of the map of a model that finds no objects."""

from keras_maskrcnn.evaluation.coco import coco_scores
from keras_maskrcnn.evaluation.predictions import finds_objects
from keras_maskrcnn.evaluation.semantic import semantic_scores


def scores(model, dataset, kinds=None, max_detections=100, batch_size=8, limit=None, progress=False, group=None):
    """The scores that a model has by its schema: `coco_scores`, or `semantic_scores` without outputs of objects.

    Args:
        model: an object with `detect_each`, as `MaskRCNN` or `FCN`.
        dataset: any reader of samples.
        kinds: of `coco_scores`.
        max_detections: of `coco_scores`.
        batch_size: images per batch of the network.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.
        group: `backend.processes.Group` whose processes share the images out, see `evaluation.collected.collect`.

    Returns:
        dict of figures, with `per_class`. `format_scores` prints either.

    Raises:
        ValueError: as these functions.
    """
    common = {"batch_size": batch_size, "limit": limit, "progress": progress, "group": group}
    if not finds_objects(model):
        return semantic_scores(model, dataset, **common)
    return coco_scores(model, dataset, kinds, max_detections=max_detections, **common)
