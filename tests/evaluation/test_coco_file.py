"""Scores of a COCO file read by `data.Coco` equal those of pycocotools on the file itself."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from keras_maskrcnn import data, evaluation

KINDS = ("bbox", "segm")


class Prepared:
    """A model with one prepared answer per image, in the order of the images."""

    def __init__(self, answers):
        self.answers = iter(answers)

    def detect(self, images, score_threshold, max_detections):
        return [next(self.answers) for _ in images]


def quiet(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


def noisy(coco, image, labels, rng):
    """The ground truth of an image, some of it missing or doubled, moved by a few pixels, as detections."""
    found = {"boxes": [], "labels": [], "masks": [], "scores": []}
    for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            x, y, w, h = annotation["bbox"]
            mask = np.roll(coco.annToMask(annotation), rng.integers(-4, 5, 2), (0, 1)).astype(bool)
            found["boxes"].append(np.array([x, y, x + max(w, 1), y + max(h, 1)]) + rng.normal(0, 3, 4))
            found["labels"].append(labels[annotation["category_id"]])
            found["masks"].append(mask)
            found["scores"].append(round(rng.random(), 1))  # with ties
    found["masks"] = np.array(found["masks"], bool).reshape(-1, image["height"], image["width"])
    return {name: np.array(values) for name, values in found.items()}


def official(path, results, kind):
    """The twelve figures of pycocotools."""
    coco = quiet(COCO, str(path))
    part = {"bbox": "bbox", "segm": "segmentation"}[kind]
    results = [{key: found[key] for key in ("image_id", "category_id", "score", part)} for found in results]
    evaluator = COCOeval(coco, quiet(coco.loadRes, results), kind)
    for step in (evaluator.evaluate, evaluator.accumulate, evaluator.summarize):
        quiet(step)
    return [math.nan if value == -1 else value for value in evaluator.stats]


def faulty(content):
    """The content of a COCO file with annotations that a reader drops and pycocotools reads."""
    for index, annotation in enumerate(content["annotations"]):
        if index % 11 == 3:
            annotation["bbox"] = [*annotation["bbox"][:2], 0, annotation["bbox"][3]]
        elif index % 11 == 6:
            annotation["bbox"] = [-300, -300, 20, 20]
        elif index % 11 == 9:
            annotation["segmentation"] = [[5, 5, 5, 5, 5, 5]]
        annotation["area"] *= 1 + index % 3
    return content


@pytest.mark.parametrize("change", [lambda content: content, faulty], ids=["as it is", "with faults"])
def test_all_figures_equal_those_of_pycocotools_on_the_file(kmr_data, tmp_path, change):
    root = kmr_data / "coco_tiny"
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(change(json.loads((root / "annotations" / "instances_val.json").read_text()))))
    coco, reader = quiet(COCO, str(path)), data.Coco(path, root / "val")
    labels = {number: label for label, number in enumerate(reader.category_ids, 1)}
    rng = np.random.default_rng(0)
    answers = [noisy(coco, image, labels, rng) for image in reader.images]
    scores = evaluation.coco_scores(Prepared(answers), reader)
    results = evaluation.coco_results(answers, [image["id"] for image in reader.images], reader.category_ids)
    for kind in KINDS:
        ours = [scores[f"{kind}_{figure}"] for figure in evaluation.coco.FIGURES]
        np.testing.assert_allclose(ours, official(path, results, kind), rtol=0, atol=1e-12, err_msg=kind)
        assert 0.1 < ours[0] < 0.99
    for wrapped in (data.Cached(reader), data.Subset(reader, range(len(reader)))):
        assert repr(evaluation.coco_scores(Prepared(answers), wrapped)) == repr(scores)  # NaN is not equal to NaN


def test_groups_of_classes_use_the_annotations_of_the_file(kmr_data):
    from keras_maskrcnn.data.grouped import VEHICLES_PEOPLE_ANIMALS

    reader = data.Grouped(data.Coco.from_folder(kmr_data / "coco_tiny", "val"), VEHICLES_PEOPLE_ANIMALS)
    image_id = reader[0]["image_id"]
    annotations = reader.coco_annotations(image_id)
    assert [annotation["category_id"] for annotation in annotations] == reader.labels_at(0).tolist()
    assert all(annotation["area"] for annotation in annotations)


@pytest.fixture
def small(tmp_path):
    """A function that writes a COCO data set of one image with two objects, the second changed."""

    def write(**changes):
        from PIL import Image

        Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
        corners = ([5, 5, 25, 5, 25, 25, 5, 25], [30, 30, 50, 30, 50, 45, 30, 45])
        annotations = [
            {"id": n, "image_id": "a", "category_id": 1, "iscrowd": 0, "segmentation": [c], "bbox": box, "area": 400}
            for n, (c, box) in enumerate(zip(corners, ([5, 5, 20, 20], [30, 30, 20, 15]), strict=True))
        ]
        annotations[1].update(changes)
        content = {
            "images": [{"id": "a", "file_name": "a.png", "height": 50, "width": 60}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": annotations,
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        return data.Coco(tmp_path / "a.json", tmp_path)

    return write


def two_found(first=0.8):
    masks = np.zeros((2, 50, 60), bool)
    masks[0, 5:25, 5:25] = masks[1, 30:45, 30:50] = True
    boxes = np.array([[5, 5, 25, 25], [30, 30, 50, 45]], np.float32)
    return {"boxes": boxes, "labels": np.array([1, 1]), "masks": masks, "scores": np.array([first, 0.9])}


@pytest.mark.parametrize(
    "changes",
    [
        {"segmentation": [[None] * 6]},
        {"segmentation": {"size": [50, 60], "counts": "n"}},
        {"bbox": [1, 2, None, 3]},
        {"bbox": "wide"},
        {"iscrowd": "0"},
        {"area": None},
        {"area": "large"},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_ignored(small, changes):
    reader = small(**changes)
    scores = evaluation.coco_scores(Prepared([two_found()]), reader)
    assert [scores[f"{kind}_AP"] for kind in KINDS] == pytest.approx([1, 1])
    found = {name: values[:1] for name, values in two_found().items()}
    missed = evaluation.coco_scores(Prepared([found]), reader)
    counted = {
        "bbox": "segmentation" in changes or "area" in changes,  # the box can be read: an object that was missed
        "segm": "bbox" in changes or "area" in changes,
    }
    for kind in KINDS:
        assert missed[f"{kind}_AP"] == pytest.approx(51 / 101 if counted[kind] else 1)


def test_an_annotation_without_box_and_mask_has_no_place(small):
    reader = small(bbox=None, segmentation=None)
    assert len(reader.coco_annotations("a")) == 1
