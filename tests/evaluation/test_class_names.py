"""Classes of model and data set are matched by name."""

import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data, evaluation


class Perfect:
    """Returns the ground truth, in the labels of its own class names."""

    def __init__(self, dataset, class_names):
        self.class_names, self.num_classes = class_names, len(class_names)
        self.samples, self.names = iter(list(dataset)), dataset.class_names

    def detect(self, images, score_threshold, max_detections):
        return [self._found(next(self.samples)) for _ in images]

    def _found(self, sample):
        labels = [self.class_names.index(self.names[label - 1]) + 1 for label in sample["labels"]]
        parts = {name: sample[name] for name in ("boxes", "masks")}
        return {**parts, "labels": np.int32(labels), "scores": np.ones(len(labels), "float32")}


@pytest.fixture(scope="module")
def shapes():
    return data.Shapes(4, image_size=(64, 64), seed=5, object_size=(12, 30))


@pytest.mark.parametrize(
    "names",
    [
        ["circle", "square", "triangle"],
        ["triangle", "circle", "square"],
        ["star", "triangle", "circle", "cross", "square"],
    ],
)
def test_order_and_further_classes_do_not_matter(shapes, names):
    scores = evaluation.coco_scores(Perfect(shapes, names), shapes)
    assert scores["bbox_AP"] == scores["segm_AP"] == 1.0
    report = evaluation.precision_recall(Perfect(shapes, names), shapes)
    assert report["overall"]["f1"] == 1.0


def test_detections_of_other_classes_are_left_out(shapes):
    model = Perfect(shapes, ["circle", "square", "triangle", "star"])
    model._found = lambda sample, found=model._found: {**(f := found(sample)), "labels": np.full_like(f["labels"], 4)}
    assert all(len(found["labels"]) == 0 for _, found in evaluation.predictions(model, shapes))


def test_classes_that_cannot_be_matched_are_named(shapes):
    with pytest.raises(ValueError, match="the data set has the classes square, which the model does not have"):
        evaluation.coco_scores(Perfect(shapes, ["circle", "triangle", "quadrangle"]), shapes)


def test_training_on_another_order_is_rejected(shapes):
    model = MaskRCNN(3, {"name": "resnet10", "width": 8}, class_names=["triangle", "circle", "square"])
    with pytest.raises(ValueError, match=r"the data's classes are \['circle', 'square', 'triangle'\], the model's"):
        model.fit(data.batches(shapes, (64, 64), 2))


def test_training_on_a_class_of_background_is_rejected(shapes):
    """The model would be saved with this name, and could not be loaded again."""
    batches = data.batches(shapes, (64, 64), 2)
    batches.class_names = ["BG", "square", "triangle"]
    with pytest.raises(ValueError, match="class_names has 'BG': background is not a class here"):
        MaskRCNN(3, {"name": "resnet10", "width": 8}).fit(batches)


@pytest.mark.parametrize("name", ["BG", "background", "__background__"])
def test_background_is_not_a_class(name):
    with pytest.raises(ValueError, match="background is not a class here"):
        MaskRCNN(2, {"name": "resnet10", "width": 8}, class_names=[name, "droplet"])
