"""Ground truth and detections of a data set, collected in one pass of the model; all figures are computed from them."""

import dataclasses

import numpy as np

from keras_maskrcnn.data.sample import refuse_path
from keras_maskrcnn.evaluation.coco_format import add_sample, coco_ground_truth, coco_results
from keras_maskrcnn.evaluation.matching import ImageResult, iou_matrix
from keras_maskrcnn.evaluation.predictions import numbered_predictions
from keras_maskrcnn.evaluation.together import shared_out

KINDS = ("bbox", "segm")


@dataclasses.dataclass(frozen=True)
class Collected:
    """Ground truth and detections in COCO's form, masks as run lengths.

    Attributes:
        ground_truth: COCO dictionary (`images`, `annotations`, `categories`), see `coco_ground_truth`.
        detections: list in the COCO result format, see `coco_results`.
        kinds: overlaps that the detections can be scored by: "bbox", "segm" or both.
        positions: dict from the id of an image to its position in the data set.
        score_threshold: the detections score higher than this.
        keypoints: whether ground truth and detections have keypoints.
    """

    ground_truth: dict
    detections: list
    kinds: tuple = KINDS
    positions: dict = dataclasses.field(default_factory=dict)
    score_threshold: float = 0.0
    keypoints: bool = False
    _images: dict = dataclasses.field(default_factory=dict, repr=False)

    @property
    def class_names(self):
        """List of K str in the order of the labels 1…K."""
        return [category["name"] for category in self.ground_truth["categories"]]

    @property
    def scored(self):
        """The kinds of `coco.score_detections` that the detections can be scored by, besides "boundary"."""
        return (*self.kinds, "keypoints") if self.keypoints else self.kinds

    def checked_kind(self, kind):
        """The kind, or the last of `kinds` for None.

        Raises:
            ValueError: the detections cannot be scored by this kind.
        """
        return checked_kind(kind, self.kinds)

    def images(self, kind):
        """`matching.ImageResult` of each image in the order of their ids, which is COCOeval's; computed once per kind.

        Args:
            kind: overlap of masks ("segm") or of boxes ("bbox").
        """
        if kind not in self._images:
            self._images[kind] = list(self._results(self.checked_kind(kind)))
        return self._images[kind]

    def _results(self, kind):
        labels = {category["id"]: label for label, category in enumerate(self.ground_truth["categories"], start=1)}
        objects, detections = (_by_image(rows) for rows in (self.ground_truth["annotations"], self.detections))
        for image in sorted(self.ground_truth["images"], key=lambda image: image["id"]):
            true = objects.get(image["id"], [])
            found = sorted(detections.get(image["id"], []), key=lambda row: -row["score"])
            crowd = [bool(row.get("iscrowd")) or kind in row.get("unreadable", ()) for row in true]
            yield ImageResult(
                image=image,
                objects=true,
                true_labels=np.array([labels[row["category_id"]] for row in true], np.int64),
                crowd=np.array(crowd, bool),
                detections=found,
                labels=np.array([labels[row["category_id"]] for row in found], np.int64),
                scores=np.array([row["score"] for row in found], np.float32),
                overlaps=iou_matrix(*([row[_REGION[kind]] for row in rows] for rows in (found, true)), crowd),
            )


_REGION = {"bbox": "bbox", "segm": "segmentation"}


def collect(
    model, dataset, score_threshold=0.0, max_detections=100, batch_size=8, limit=None, progress=False, group=None
):
    """Runs a model on a data set once and keeps ground truth and detections, masks as run lengths.

    The ground truth of a COCO file is that of the file, see `evaluation.coco`.

    Args:
        model: an object with `detect`, as `MaskRCNN` or `SavedModel`.
        dataset: any reader of samples.
        score_threshold: minimum score of a detection. AP integrates over all scores, so 0 gives the true value.
        max_detections: maximum number of detections per image.
        batch_size: images per batch of the network; few more samples are in memory at the same time.
        limit: only the first `limit` images.
        progress: whether to draw a progress bar.
        group: `backend.processes.Group` whose processes call this together, each for its part of the images; all get
            the result. None for this process alone.

    Returns:
        `Collected`.

    Raises:
        ValueError: no image could be read, or the classes of the model and the data set do not match.
    """
    refuse_path(dataset)
    shared = group is not None and group.count > 1

    def part(dataset, places):
        truth = coco_ground_truth([], dataset.class_names)
        results, positions = [], []
        for index, sample, found in numbered_predictions(
            model, dataset, score_threshold, max_detections, batch_size, len(places), progress
        ):
            annotations = getattr(dataset, "coco_annotations", lambda _: None)(sample.get("image_id"))
            image_id = add_sample(truth, sample, annotations, places[index] + 1 if shared else None)
            # As run lengths, since the boolean masks of a thousand images would not fit in memory.
            results.extend(coco_results([found], [image_id]))
            positions.append(places[index])
        return {"truth": truth, "results": results, "positions": positions}

    parts = shared_out(group, dataset, limit, part)
    truth, results, positions = parts[0].values() if len(parts) == 1 else _joined(parts)
    positions = {image["id"]: position for image, position in zip(truth["images"], positions, strict=True)}
    keypoints = has_keypoints(model) and any(field.name == "keypoints" for field in getattr(dataset, "fields", ()))
    return Collected(truth, results, scored_kinds(model), positions, score_threshold, keypoints)


def _joined(parts):
    """The values of the parts of several processes as one process gives them: in the order of the data set."""
    images = [image for part in parts for image in part["truth"]["images"]]
    positions = [position for part in parts for position in part["positions"]]
    order = sorted(range(len(images)), key=positions.__getitem__)
    images = [images[index] for index in order]
    annotations = _by_image(row for part in parts for row in part["truth"]["annotations"])
    results = _by_image(row for part in parts for row in part["results"])
    annotations, results = (
        [row for image in images for row in rows.get(image["id"], [])] for rows in (annotations, results)
    )
    annotations = [{**row, "id": number} for number, row in enumerate(annotations, start=1)]
    truth = {**parts[0]["truth"], "images": images, "annotations": annotations}
    return truth, results, [positions[index] for index in order]


def checked_kind(kind, kinds):
    """The kind, or the last of `kinds` for None; raises ValueError for one that is not among them."""
    kind = kinds[-1] if kind is None else kind
    if kind not in kinds:
        raise ValueError(f"kind must be one of {kinds}, got {kind!r}")
    return kind


def scored_kinds(model):
    """The kinds of overlap that a model's schema allows; both for a model without a schema."""
    schema = getattr(model, "schema", None)
    if schema is None:
        return KINDS
    predicted = {"bbox": any(output.kind == "boxes" for output in schema), "segm": any(o.is_mask for o in schema)}
    return tuple(kind for kind in KINDS if predicted[kind])


def has_keypoints(model):
    """Whether a model predicts keypoints."""
    return any((output.name, output.kind) == ("keypoints", "points") for output in getattr(model, "schema", None) or ())


def _by_image(rows):
    grouped = {}
    for row in rows:
        grouped.setdefault(row["image_id"], []).append(row)
    return grouped
