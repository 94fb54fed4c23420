"""Keypoint scores: by hand, against pycocotools on files, and from samples and detections."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from keras_maskrcnn import data, evaluation
from keras_maskrcnn.data.sample import Same
from keras_maskrcnn.evaluation import oks
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.outputs import Detections

SCHEMA = (*OUTPUTS, *KeypointHead.OUTPUTS)


class Answers:
    """A model that returns the ground truth of a data set, each keypoint moved to the right by a number of pixels."""

    schema, num_classes, class_names = SCHEMA, 1, None

    def __init__(self, dataset, moved=0.0, score=0.9):
        self.samples, self.moved, self.score = list(dataset), moved, score

    def detect(self, images, **options):
        by_image = {sample["image"].tobytes(): sample for sample in self.samples}
        return [self._found(by_image[image.tobytes()]) for image in images]

    def _found(self, sample):
        points = sample["keypoints"].copy()
        points[..., 0] += self.moved
        count = len(points)
        arrays = {"boxes": sample["boxes"], "labels": sample["labels"], "scores": np.full(count, self.score, "float32")}
        return Detections({**arrays, "keypoints": points, "keypoint_scores": np.ones((count, 17), "float32")}, SCHEMA)


class OnDisk(Same):
    """The samples with their images in files."""

    def __init__(self, dataset, folder):
        super().__init__(dataset)
        self.folder = folder

    def read(self, position):
        sample, path = self.dataset[position], self.folder / f"{position}.png"
        Image.fromarray(sample["image"]).save(path)
        return {**sample, "source": str(path)}


@pytest.fixture(scope="module")
def figures():
    return data.Subset(data.StickFigures(6, seed=4, figures=(1, 2)), range(6))


def test_true_keypoints_score_one(figures):
    scores = evaluation.coco_scores(Answers(figures), figures)
    assert {name for name in scores if name.startswith("keypoints_")} == {f"keypoints_{name}" for name in oks.FIGURES}
    assert scores["keypoints_AP"] == pytest.approx(1) and scores["keypoints_AR75"] == pytest.approx(1)
    assert set(scores["per_class"]["person"]) >= {"keypoints_AP", "keypoints_AP50", "keypoints_AR", "bbox_AP"}
    table = evaluation.format_scores(scores)
    assert table.splitlines()[0].split() == ["bbox", "keypoints"]
    assert any(line.split() == ["AR50", "-", "1.000"] for line in table.splitlines())


def test_moved_keypoints_score_less_and_a_data_set_without_them_is_not_scored(figures):
    near, far = (evaluation.coco_scores(Answers(figures, moved), figures)["keypoints_AP"] for moved in (1.0, 6.0))
    assert far < near < 1
    shapes = data.Shapes(2)
    model = Answers([])
    model.num_classes = 3
    model.detect = lambda images, **_: [Detections(empty(), SCHEMA) for _ in images]
    assert not [name for name in evaluation.coco_scores(model, shapes) if name.startswith("keypoints")]


def empty():
    arrays = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, "int32"), "scores": np.zeros(0)}
    return {**arrays, "keypoints": np.zeros((0, 17, 3)), "keypoint_scores": np.zeros((0, 17))}


def one(points, area=400.0, **more):
    """A COCO dictionary with one object of the given keypoints."""
    box = {"bbox": [0, 0, 20, 20], "area": area, "iscrowd": 0}
    return {
        "images": [{"id": 1, "height": 50, "width": 50}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **box, "keypoints": points, **more}],
    }


def detection(points, score=0.5):
    return {"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": score, "keypoints": points}


def test_similarity_by_hand():
    """One labelled point of σ = 0.1 is off by d: exp(-d² / (2 · area · (2σ)²)) = 0.8 for d² = -log 0.8 · 32."""
    distance = float(np.sqrt(-np.log(0.8) * 2 * 400 * 0.04))
    truth, found = one([10, 10, 2, 0, 0, 0]), [detection([10 + distance * 0.999, 10, 1, 99, 99, 1])]
    scores = evaluation.score_detections(truth, found, ("keypoints",), sigmas=(0.1, 0.1))
    assert scores["keypoints_AP"] == pytest.approx(7 / 10)  # thresholds 0.50, 0.55, … 0.80
    assert scores["keypoints_AP75"] == pytest.approx(1) and np.isnan(scores["keypoints_APl"])


def test_default_sigmas():
    assert len(oks.SIGMAS) == 17 and oks.default_sigmas(17) == oks.SIGMAS
    np.testing.assert_allclose(oks.SIGMAS, COCOeval(iouType="keypoints").params.kpt_oks_sigmas)
    assert oks.default_sigmas(3) == pytest.approx([0.067] * 3, abs=5e-4)


@pytest.mark.parametrize(
    ("found", "sigmas", "reason"),
    [
        ([detection([1, 1, 1])], None, r"different numbers of keypoints: \[1, 2\]"),
        ([detection([1, 1, 1] * 2)], (0.1,), "1 sigmas for 2 keypoints"),
    ],
)
def test_numbers_that_differ_are_refused(found, sigmas, reason):
    with pytest.raises(ValueError, match=reason):
        evaluation.score_detections(one([10, 10, 2, 0, 0, 0]), found, ("keypoints",), sigmas=sigmas)


def test_no_detection_scores_zero_and_objects_without_keypoints_are_ignored():
    assert evaluation.score_detections(one([10, 10, 2]), [], ("keypoints",))["keypoints_AP"] == 0
    truth = one([10, 10, 2])
    truth["annotations"].append({**truth["annotations"][0], "id": 2, "bbox": [30, 30, 10, 10], "keypoints": None})
    assert evaluation.score_detections(truth, [detection([10, 10, 1])], ("keypoints",))[
        "keypoints_AP"
    ] == pytest.approx(1)
    assert np.isnan(evaluation.score_detections(one([0, 0, 0]), [], ("keypoints",))["keypoints_AP"])


@pytest.mark.parametrize("boxes", [True, False])
def test_files_score_as_pycocotools_scores_them(figures, tmp_path, boxes):
    """Ground truth and results as files in COCO's own evaluation, pixel centres at whole numbers."""
    data.write_coco(OnDisk(figures, tmp_path), tmp_path / "truth.json")
    reader = data.Coco(tmp_path / "truth.json", tmp_path, keypoints=True)
    model, rng = Answers(figures), np.random.default_rng(0)
    found = model.detect([sample["image"] for sample in figures])
    for row in found:
        row["keypoints"] = row["keypoints"] + np.float32(rng.normal(0, 2, row["keypoints"].shape)) * [1, 1, 0]
        row["scores"] = rng.uniform(0.1, 1, len(row["scores"])).astype("float32")
    results = evaluation.coco_results(found, [record["id"] for record in reader.images])
    results = results if boxes else [{k: v for k, v in result.items() if k != "bbox"} for result in results]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        theirs = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "keypoints")
        theirs.evaluate(), theirs.accumulate(), theirs.summarize()
    truth = evaluation.coco_ground_truth([], reader.class_names)
    for record in reader.images:
        sample = {"image": np.zeros((160, 160, 3)), "image_id": record["id"], "source": "file"}
        evaluation.add_sample(truth, sample, reader.coco_annotations(record["id"]))
    ours = evaluation.score_detections(truth, results, ("keypoints",))
    assert 0.2 < ours["keypoints_AP"] < 0.95
    wanted = np.where(theirs.stats < 0, np.nan, theirs.stats)
    np.testing.assert_allclose([ours[f"keypoints_{name}"] for name in oks.FIGURES], wanted, atol=1e-6)


def test_results_are_lists_with_pixel_centres_at_whole_numbers(figures):
    found = Answers(figures).detect([figures[0]["image"]])
    result = evaluation.coco_results(found, [7])[0]
    points = found[0]["keypoints"][0]
    assert len(result["keypoints"]) == 51 and result["keypoints"][0] == pytest.approx(points[0, 0] - 0.5)
    assert len(result["keypoint_scores"]) == 17
    json.dumps(result)
