"""Scores of several processes, which are threads here: those of one process."""

import concurrent.futures
import functools
import threading

import numpy as np
import pytest

from keras_maskrcnn import data, evaluation
from keras_maskrcnn.backend.processes import Group
from keras_maskrcnn.data.sample import Wrapper
from keras_maskrcnn.evaluation.collected import collect


class Model:
    """Finds the objects of the images it knows, with a score and a shift that depend on the image."""

    num_classes, class_names = 3, None

    def __init__(self, samples):
        self.known = {sample["image"].tobytes(): (number, sample) for number, sample in enumerate(samples)}

    def detect(self, images, score_threshold, max_detections):
        return [self._one(image) for image in images]

    def _one(self, image):
        number, sample = self.known[image.tobytes()]
        shift, count = number % 3, len(sample["labels"])
        return {
            "boxes": np.clip(sample["boxes"] + shift, 0, 64).astype("float32"),
            "labels": sample["labels"],
            "scores": np.linspace(0.9, 0.5, count, dtype="float32"),  # equal scores in different images
            "masks": np.roll(sample["masks"], shift, axis=2),
        }


class Damaged(Wrapper):
    """Some samples cannot be read."""

    def __init__(self, dataset, broken, error):
        super().__init__(dataset)
        self.broken, self.error = broken, error

    def __len__(self):
        return len(self.dataset)

    def read(self, position):
        if position in self.broken:
            raise self.error
        return self.dataset[position]


def together(count, function):
    """Results of `function(group)` in each process, an exception as it is."""
    contents, barrier = [None] * count, threading.Barrier(count, timeout=60)

    def exchange(index, content):
        contents[index] = content
        barrier.wait()
        found = list(contents)
        barrier.wait()
        return found

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        groups = [Group(index, count, functools.partial(exchange, index)) for index in range(count)]
        started = [pool.submit(function, group) for group in groups]
        return [one.exception() or one.result() for one in started]


@pytest.fixture(scope="module")
def shapes():
    return data.Shapes(7, image_size=(64, 64), seed=5, object_size=(12, 30))


@pytest.mark.parametrize(("count", "limit", "broken"), [(2, None, ()), (3, 5, ()), (4, 3, ()), (3, None, (1, 4))])
def test_the_scores_of_one_process(shapes, count, limit, broken):
    model, damaged = Model(shapes), Damaged(shapes, broken, data.DataError("image", "is damaged"))
    alone = evaluation.coco_scores(model, damaged, limit=limit)
    assert 0.1 < alone["bbox_AP"] < 1
    for found in together(count, lambda group: evaluation.coco_scores(model, damaged, limit=limit, group=group)):
        np.testing.assert_equal(found, alone)


def test_ground_truth_and_detections_are_in_the_order_of_the_data_set(shapes):
    alone = collect(Model(shapes), shapes)
    for found in together(3, lambda group: collect(Model(shapes), shapes, group=group)):
        assert (found.ground_truth, found.detections, found.positions) == (
            alone.ground_truth,
            alone.detections,
            alone.positions,
        )


def test_what_stops_one_process_stops_all(shapes):
    lost = Damaged(shapes, (3,), ValueError("a lost disk"))
    for error in together(2, lambda group: collect(Model(shapes), lost, group=group)):
        assert isinstance(error, ValueError) and "a lost disk" in str(error)


def test_nothing_can_be_read(shapes):
    lost = Damaged(shapes, range(7), data.DataError("image", "is damaged"))
    for error in together(2, lambda group: collect(Model(shapes), lost, group=group)):
        assert isinstance(error, ValueError) and "nothing to evaluate" in str(error)
