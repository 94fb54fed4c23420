"""All figures in one pass of the model, and the page."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data, evaluation
from keras_maskrcnn.evaluation.page import page
from keras_maskrcnn.heads.detection import OUTPUTS


class Noisy:
    """Returns the ground truth of each image with objects left out, doubled and moved; counts the images it gets."""

    num_classes = 3

    def __init__(self, dataset, class_names=None, keep=0.8, schema=None):
        self.samples, self.class_names, self.keep, self.calls = iter(list(dataset)), class_names, keep, 0
        if schema:
            self.schema = schema

    def detect(self, images, score_threshold, max_detections):
        self.calls += len(images)
        return [self._found(next(self.samples)) for _ in images]

    def _found(self, sample):
        rng = np.random.default_rng(int(sample["boxes"].sum()) + len(sample["labels"]))
        rows = np.flatnonzero(rng.random(len(sample["labels"])) < self.keep).repeat(1 + rng.integers(2))
        shift = rng.integers(-3, 4, 2)
        found = {
            "boxes": sample["boxes"][rows] + np.tile(shift[::-1], 2).astype("float32"),
            "labels": sample["labels"][rows],
            "scores": np.sort(rng.random(len(rows)).astype("float32"))[::-1],
            "masks": np.roll(sample["masks"], shift, (1, 2))[rows],
        }
        return {name: found[name] for name in found if name != "masks" or not hasattr(self, "schema")}


@pytest.fixture(scope="module")
def shapes():
    return data.Shapes(6, image_size=(64, 64), seed=5, object_size=(12, 30))


def test_one_pass_gives_the_figures_of_the_single_functions(shapes, tmp_path):
    model = Noisy(shapes)
    figures = evaluation.explain(model, shapes, boundary=True, html=tmp_path / "new" / "report.html")
    assert model.calls == len(shapes)
    assert np.isfinite(figures["boundary_AP"])
    scores = evaluation.coco_scores(Noisy(shapes), shapes)
    assert repr({name: figures[name] for name in scores if name != "per_class"}) == repr(
        {name: scores[name] for name in scores if name != "per_class"}
    )
    report = evaluation.precision_recall(Noisy(shapes), shapes)
    np.testing.assert_array_equal(figures["report"]["confusion"], _above(shapes, 0.5)["confusion"])
    assert figures["report"]["names"] == report["names"]
    assert figures["dsb_score"] == pytest.approx(evaluation.dsb_score(Noisy(shapes), shapes, 0.5))
    assert figures["tide"] == evaluation.tide(evaluation.collect(Noisy(shapes), shapes))
    assert (figures["images"], figures["objects"]) == (6, sum(len(sample["labels"]) for sample in shapes))
    totals = [sum(row[name] for row in figures["per_image"]) for name in ("true_positives", "false_positives")]
    assert totals == [figures["report"]["overall"][name] for name in ("true_positives", "false_positives")]
    assert totals[0] > 0 and len(figures["per_image"]) == 6
    assert json.loads(json.dumps(evaluation.for_json(figures), allow_nan=False))["kind"] == "segm"


def _above(dataset, score):
    return evaluation.report.rates_at(evaluation.collect(Noisy(dataset), dataset), score)


def pictures(text, kind):
    return [base64.b64decode(content) for content in re.findall(rf'src="data:image/{kind};base64,([^"]+)"', text)]


def test_the_page_stands_alone(shapes, tmp_path):
    path = tmp_path / "report.html"
    figures = evaluation.explain(Noisy(shapes), shapes, html=path, worst=3)
    text = path.read_text(encoding="utf-8")
    outside = re.sub(r"base64,[^\"]+", "", text)
    assert "http" not in outside and "<script" not in outside and "url(" not in outside
    assert set(re.findall(r'src="([^"]{0,5})', text)) == {"data:"}
    svgs, drawn = pictures(text, r"svg\+xml"), pictures(text, "jpeg")
    assert len(svgs) == 5 and all(b"</svg>" in svg for svg in svgs)
    wrong = [row for row in figures["per_image"] if row["wrong"]]
    assert len(drawn) == min(3, len(wrong)) > 0
    for content in drawn:
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        assert pixels.shape[1] > 2 * 64 and pixels.std() > 8
    lowest = min(wrong, key=lambda row: row["f1"])
    assert lowest["wrong"] in text and lowest["image"] in text
    for title in ("COCO scores by class", "Errors by type (TIDE)", "Calibration", "By size of the objects"):
        assert f"<h2>{title}" in text
    assert f"<td>AP50</td><td>{figures['bbox_AP50']:.3f}</td><td>{figures['segm_AP50']:.3f}</td>" in text


def test_names_are_escaped(collected, tmp_path):
    found = collected(([(1, (0, 0, 20, 20))], []), class_names=("<b>&", "$x^$", "$"))
    figures = evaluation.explained(found)
    found.positions.update({1: 0})
    dataset = [{"image": np.zeros((100, 100, 3), np.uint8)}]
    text = page(found, figures, dataset)
    assert "&lt;b&gt;&amp;" in text and "<b>&" not in text


A = (0, 0, 20, 20)
EDGES = {
    "no detections": ([([(1, A)], [])], ("cat",)),
    "no objects": ([([], [(1, A, 0.9)])], ("cat",)),
    "nothing": ([([], [])], ("cat", "dog")),
    "only crowds": ([([(1, (0, 0, 60, 60), "crowd")], [(1, (9, 9, 20, 20), 0.9)])], ("cat",)),
    "all right": ([([(1, A)], [(1, A, 0.9)])], ("cat",)),
    "80 classes": (
        [([(label, A) for label in range(1, 81)], [(label, A, 0.9) for label in range(1, 81)])],
        tuple(f"class {label}" for label in range(1, 81)),
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_edge_cases(name, collected):
    images, class_names = EDGES[name]
    found = collected(*images, class_names=class_names)
    found.positions.update({image["id"]: 0 for image in found.ground_truth["images"]})
    figures = evaluation.explained(found, boundary=True)
    json.dumps(evaluation.for_json(figures), allow_nan=False)
    text = page(found, figures, [{"image": np.zeros((100, 100, 3), np.uint8)}])
    wrong = name in ("no detections", "no objects")
    assert len(pictures(text, "jpeg")) == wrong
    assert len(pictures(text, r"svg\+xml")) == 5 and "nan" not in re.sub(r"base64,[^\"]+", "", text)
    assert evaluation.format_explanation(figures).count("\n") > 20
    if name in ("all right", "80 classes"):
        assert figures["segm_AP"] == pytest.approx(1) and figures["tide"]["AP"] == pytest.approx(1)


def test_a_model_of_boxes(shapes, tmp_path):
    figures = evaluation.explain(Noisy(shapes, schema=OUTPUTS), shapes, html=tmp_path / "report.html")
    assert figures["kind"] == "bbox" and "segm_AP" not in figures and "dsb_score" not in figures
    assert pictures((tmp_path / "report.html").read_text(), "jpeg")
    model = Noisy(shapes, schema=OUTPUTS)
    with pytest.raises(ValueError, match=r"kind must be one of \('bbox',\), got 'segm'"):
        evaluation.explain(model, shapes, boundary=True)
    assert not model.calls


def test_pixels_are_those_of_the_image_when_others_cannot_be_read(shapes, tmp_path):
    """The first sample is broken: the positions of the others are those in the data set."""

    class Broken(data.Subset):
        def read(self, position):
            if position == 0:
                raise data.DataError("broken.png", "is truncated")
            return super().read(position)

    broken = Broken(shapes, range(3))
    found = evaluation.collect(Noisy(list(shapes)[1:3], keep=0), broken)
    assert list(found.positions.values()) == [1, 2]
    files = {image["id"]: image["file_name"] for image in found.ground_truth["images"]}
    assert {broken[position]["source"]: files[image] for image, position in found.positions.items()} == {
        shapes[1]["source"]: shapes[1]["source"],
        shapes[2]["source"]: shapes[2]["source"],
    }


def test_crowds_of_a_coco_file(kmr_data, tmp_path):
    """Real photos with crowds and 80 classes: AP50 of `tide` is that of pycocotools."""
    root = kmr_data / "coco_tiny"
    dataset = data.Coco(root / "annotations" / "instances_val.json", root / "val")
    model = Noisy(data.Subset(dataset, range(12)))
    model.num_classes = 80
    figures = evaluation.explain(model, dataset, limit=12, html=tmp_path / "report.html", worst=2)
    assert figures["tide"]["AP"] == pytest.approx(figures["segm_AP50"], abs=1e-9)
    assert len(pictures((tmp_path / "report.html").read_text(), "jpeg")) == 2
