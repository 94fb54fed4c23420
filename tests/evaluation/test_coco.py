"""COCO scores: known results, unusual inputs, and agreement with pycocotools on a COCO file."""

import contextlib
import io
import json
import logging
import math

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from keras_maskrcnn import evaluation
from keras_maskrcnn.data import DataError
from keras_maskrcnn.heads.detection import OUTPUTS

SIDE = 64


class Reader(list):
    """Samples in memory."""

    class_names = ("cat", "dog")


class FakeModel:
    """Returns prepared detections in the order of the images, and records its calls."""

    def __init__(self, predictions):
        self.predictions, self.calls = list(predictions), []

    def detect(self, images, score_threshold, max_detections):
        self.calls.append((len(images), score_threshold, max_detections))
        return [self.predictions.pop(0) for _ in images]


def sample(boxes, labels, crowd=None, name="image"):
    masks = np.zeros((len(boxes), SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return {
        "image": np.zeros((SIDE, SIDE, 3), np.uint8),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int32),
        "masks": masks,
        "crowd": np.array(crowd if crowd is not None else [False] * len(boxes), bool),
        "image_id": name,
        "source": name,
    }


def found(boxes, labels, scores):
    parts = sample(boxes, labels)
    return {**{key: parts[key] for key in ("boxes", "labels", "masks")}, "scores": np.array(scores, np.float32)}


def scores_of(samples, predictions, **options):
    return evaluation.coco_scores(FakeModel(predictions), Reader(samples), **options)


A, B, C = (0, 0, 20, 20), (30, 30, 60, 60), (0, 40, 20, 60)


def test_perfect_detections_score_one():
    samples = [sample([A, B], [1, 2]), sample([C], [1])]
    scores = scores_of(samples, [found([A, B], [1, 2], [0.9, 0.8]), found([C], [1], [0.7])])
    for kind in ("bbox", "segm"):
        assert scores[f"{kind}_AP"] == scores[f"{kind}_AP50"] == scores[f"{kind}_AP75"] == pytest.approx(1.0)
        assert scores[f"{kind}_APs"] == scores[f"{kind}_ARs"] == pytest.approx(1.0)  # all are under 32 x 32 pixels
        assert math.isnan(scores[f"{kind}_APm"]) and math.isnan(scores[f"{kind}_APl"])
        assert scores[f"{kind}_AR1"] == scores[f"{kind}_AR100"] == pytest.approx(1.0)
    for name in ("cat", "dog"):
        figures = ("bbox_AP", "bbox_AP50", "bbox_AR100", "segm_AP", "segm_AP50", "segm_AR100")
        assert scores["per_class"][name] == pytest.approx(dict.fromkeys(figures, 1.0))
    assert len(scores) == 2 * 12 + 1


def test_one_object_of_two_found():
    # Recall reaches 0.5 at precision 1: of the 101 recall points 0, 0.01, …, 1 the first 51 have precision 1.
    scores = scores_of([sample([A, B], [1, 1])], [found([A], [1], [0.9])])
    assert scores["segm_AP"] == pytest.approx(51 / 101)
    assert scores["segm_AR100"] == pytest.approx(0.5)


def test_a_wrong_detection_above_the_right_one_halves_precision():
    scores = scores_of([sample([A], [1])], [found([B, A], [1, 1], [0.9, 0.8])])
    assert scores["bbox_AP"] == pytest.approx(0.5)
    assert scores["bbox_AR1"] == pytest.approx(0.0)
    assert scores["bbox_AR10"] == pytest.approx(1.0)


def test_a_match_counts_at_thresholds_up_to_its_iou():
    # 20 x 20 against 20 x 14 inside it: IoU 0.7 counts at 0.50, 0.55, 0.60, 0.65 and 0.70: 5 of 10 thresholds.
    scores = scores_of([sample([A], [1])], [found([(0, 0, 20, 14)], [1], [0.9])])
    assert scores["segm_AP"] == pytest.approx(0.5)
    assert (scores["segm_AP50"], scores["segm_AP75"]) == (pytest.approx(1.0), pytest.approx(0.0))


def test_masks_and_boxes_are_scored_separately():
    prediction = found([A], [1], [0.9])
    prediction["masks"][:] = False
    prediction["masks"][0, 40:, 40:] = True  # the box is right, the mask is not
    scores = scores_of([sample([A], [1])], [prediction])
    assert (scores["bbox_AP"], scores["segm_AP"]) == (pytest.approx(1.0), pytest.approx(0.0))


def test_crowd_is_neither_an_object_nor_a_mistake():
    crowd = sample([A, B], [1, 1], crowd=[False, True])
    inside_the_crowd = found([A, (32, 32, 40, 40), (45, 45, 55, 55)], [1, 1, 1], [0.7, 0.9, 0.8])
    assert scores_of([crowd], [inside_the_crowd])["segm_AP"] == pytest.approx(1.0)
    plain = sample([A, B], [1, 1])
    assert scores_of([plain], [inside_the_crowd])["segm_AP"] < 0.5


def test_false_positive_on_an_image_without_objects_lowers_precision():
    samples = [sample([], []), sample([A], [1])]
    assert scores_of(samples, [found([], [], []), found([A], [1], [0.8])])["segm_AP"] == pytest.approx(1.0)
    assert scores_of(samples, [found([B], [1], [0.9]), found([A], [1], [0.8])])["segm_AP"] == pytest.approx(0.5)


def test_no_detection_at_all_scores_zero():
    scores = scores_of([sample([A], [1])], [found([], [], [])])
    assert scores["bbox_AP"] == scores["segm_AP"] == scores["segm_AR100"] == 0.0


def test_scores_without_any_object_are_nan():
    scores = scores_of([sample([], [])], [found([A], [1], [0.9])])
    assert math.isnan(scores["bbox_AP"]) and math.isnan(scores["segm_AR1"])


def test_class_without_objects_is_nan_and_not_in_the_mean():
    scores = scores_of([sample([A], [1])], [found([A], [1], [0.9])])
    assert scores["per_class"]["cat"]["segm_AP"] == pytest.approx(1.0)
    assert math.isnan(scores["per_class"]["dog"]["segm_AP"])
    assert scores["segm_AP"] == pytest.approx(1.0)


def test_more_than_a_hundred_detections_count_when_allowed():
    boxes = [(x, y, x + 4, y + 4) for x in range(0, 60, 5) for y in range(0, 60, 5)]  # 144 objects
    prediction = found(boxes, [1] * 144, np.linspace(0.9, 0.5, 144))
    crowded = sample(boxes, [1] * 144)
    assert scores_of([crowded], [prediction], max_detections=200)["segm_AR100"] == pytest.approx(1.0)
    assert scores_of([crowded], [prediction])["segm_AR100"] == pytest.approx(100 / 144)


def test_boxes_are_scored_without_masks():
    prediction = found([A], [1], [0.9])
    del prediction["masks"]
    scores = scores_of([sample([A], [1])], [prediction], kinds=("bbox",))
    assert scores["bbox_AP"] == pytest.approx(1.0)
    assert "segm_AP" not in scores and all(figure.startswith("bbox") for figure in scores["per_class"]["cat"])


def test_samples_are_detected_in_chunks_up_to_the_limit():
    model = FakeModel([found([A], [1], [0.9])] * 5)
    evaluation.coco_scores(model, Reader([sample([A], [1])] * 9), batch_size=2, limit=5, score_threshold=0.1)
    assert model.calls == [(2, 0.1, 100), (2, 0.1, 100), (1, 0.1, 100)]


def test_unreadable_image_is_skipped_and_logged(caplog):
    class Broken(Reader):
        def __getitem__(self, index):
            if index == 1:
                raise DataError("b.jpg", "truncated")
            return super().__getitem__(index)

    model = FakeModel([found([A], [1], [0.9])] * 2)
    with caplog.at_level(logging.WARNING):
        scores = evaluation.coco_scores(model, Broken([sample([A], [1])] * 3))
    assert scores["segm_AP"] == pytest.approx(1.0)
    assert model.calls[0][0] == 2
    assert "b.jpg" in caplog.text and "truncated" in caplog.text
    assert "1 of 3 images could not be read" in caplog.text


def test_nothing_readable_is_an_error():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluation.coco_scores(FakeModel([]), Reader([]))


def test_model_with_other_classes_is_rejected():
    model = FakeModel([])
    model.num_classes = 3
    with pytest.raises(ValueError, match="3 classes but the data set has 2: cat, dog"):
        evaluation.coco_scores(model, Reader([sample([A], [1])]))


def test_unknown_kind_and_unknown_image_are_rejected():
    truth = evaluation.coco_ground_truth([sample([A], [1])], ["cat"])
    with pytest.raises(ValueError, match="kinds"):
        evaluation.score_detections(truth, [], kinds=("panoptic",))
    stray = evaluation.coco_results([found([A], [1], [0.9])], [7])
    with pytest.raises(ValueError, match=r"does not have: \[7\]"):
        evaluation.score_detections(truth, stray)


def test_kinds_are_those_in_the_schema_of_the_model():
    prediction = found([A], [1], [0.9])
    del prediction["masks"]
    model = FakeModel([prediction])
    model.schema = OUTPUTS
    scores = evaluation.coco_scores(model, Reader([sample([A], [1])]))
    assert scores["bbox_AP"] == pytest.approx(1.0) and "segm_AP" not in scores


def test_figures_for_json_are_python_numbers_without_nan():
    figures = {
        "AP": np.float32(0.12345678),
        5: (np.int64(3), True, None, "cat", math.nan, math.inf),
        "matrix": np.array([[1, 2]]),
        "per_class": {"cat": np.array([0.5, np.nan])},
    }
    rounded = evaluation.for_json(figures, digits=4)
    assert rounded == {
        "AP": 0.1235,
        "5": [3, True, None, "cat", None, None],
        "matrix": [[1, 2]],
        "per_class": {"cat": [0.5, None]},
    }
    assert json.loads(json.dumps(rounded, allow_nan=False)) == rounded
    assert evaluation.for_json(figures)["AP"] == pytest.approx(0.12345678, abs=1e-8)


def test_nothing_is_printed(capsys):
    scores_of([sample([A], [1])], [found([A], [1], [0.9])])
    assert capsys.readouterr() == ("", "")


def test_results_are_json_and_keep_gaps_in_category_ids():
    results = evaluation.coco_results([found([A], [2], [0.5])], [11], category_ids=[1, 90])
    (result,) = json.loads(json.dumps(results))
    assert (result["image_id"], result["category_id"], result["score"]) == (11, 90, 0.5)
    assert result["bbox"] == [0.0, 0.0, 20.0, 20.0]
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:20, :20] = True
    np.testing.assert_array_equal(mask_tools.decode(result["segmentation"]).astype(bool), mask)


def jittered(coco, rng):
    """The objects of a COCO file moved a little, some dropped, in the result format."""
    results = []
    for annotation in coco.dataset["annotations"]:
        if rng.random() < 0.2:
            continue
        box = np.array(annotation["bbox"]) + rng.normal(0, 4, 4)
        box[2:] = np.maximum(box[2:], 1)
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": box.tolist(),
                "segmentation": coco.annToRLE(annotation),
                "score": float(rng.random()),
            }
        )
    return results


def test_scores_agree_with_pycocotools_on_a_coco_file(kmr_data):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(kmr_data / "coco_tiny/annotations/instances_val.json"))
        results = jittered(coco, np.random.default_rng(0))
        ours = evaluation.score_detections(coco.dataset, results)
        for kind in ("bbox", "segm"):
            parts = ("image_id", "category_id", "score", {"bbox": "bbox", "segm": "segmentation"}[kind])
            reference = COCOeval(coco, coco.loadRes([{part: r[part] for part in parts} for r in results]), kind)
            reference.evaluate()
            reference.accumulate()
            reference.summarize()
            theirs = [math.nan if value == -1 else value for value in reference.stats]
            scores = [value for name, value in ours.items() if name.startswith(kind)]
            np.testing.assert_allclose(scores, theirs, atol=1e-12)
            assert 0.1 < theirs[0] < 0.99


def test_reader_gives_the_same_box_scores_as_its_file(kmr_data):
    from keras_maskrcnn.data import Coco

    path = kmr_data / "coco_tiny/annotations/instances_val.json"
    reader = Coco(path, kmr_data / "coco_tiny/val")
    truth = evaluation.coco_ground_truth((reader[index] for index in range(len(reader))), reader.class_names)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    results = jittered(coco, np.random.default_rng(1))
    of_file = evaluation.score_detections(coco.dataset, results, kinds=("bbox",))
    number = {image["file_name"]: index for index, image in enumerate(coco.dataset["images"], start=1)}
    number = {image["id"]: number[image["file_name"]] for image in coco.dataset["images"]}
    label = {category: index for index, category in enumerate(reader.category_ids, start=1)}
    moved = [{**r, "image_id": number[r["image_id"]], "category_id": label[r["category_id"]]} for r in results]
    of_reader = evaluation.score_detections(truth, moved, kinds=("bbox",))
    for figure in ("bbox_AP", "bbox_AP50", "bbox_AP75", "bbox_AR1", "bbox_AR100"):
        assert of_reader[figure] == pytest.approx(of_file[figure], abs=0.01), figure


def test_ground_truth_as_detections_scores_one():
    from keras_maskrcnn.data import Shapes

    reader = Shapes(6, seed=3)
    predictions = [
        {**{key: s[key] for key in ("boxes", "labels", "masks")}, "scores": np.ones(len(s["labels"]), np.float32)}
        for s in (reader[index] for index in range(6))
    ]
    scores = evaluation.coco_scores(FakeModel(predictions), reader)
    assert scores["segm_AP"] == pytest.approx(1.0) and scores["bbox_AP"] == pytest.approx(1.0)
    assert set(scores["per_class"]) == set(reader.class_names)
