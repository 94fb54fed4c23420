"""Bad input is left out, counted and listed; or it stops the program."""

import logging

import numpy as np
import pytest

from keras_maskrcnn import data, evaluation
from keras_maskrcnn.data import strict

SQUARE = {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]], "bbox": [2, 1, 4, 3]}
EMPTY = {"segmentation": [[2, 1, 6, 1]]}  # found when the sample is read


@pytest.fixture
def damaged(coco_folder, truncated_jpeg):
    """A data set of four images, the second of which is truncated."""
    path, folder = coco_folder([SQUARE], images=[f"{name}.png" for name in "abcd"])
    (folder / "b.png").write_bytes(truncated_jpeg)
    return data.Coco(path, folder)


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize("cache", [False, True])
def test_an_epoch_survives_a_truncated_image(damaged, backend, cache):
    batches = data.batches(damaged, (32, 32), 1, backend=backend, cache=cache)
    count = sum(1 for _ in batches) if backend == "tf" else sum(1 for i in range(batches.num_batches) if batches[i])
    assert count == (3 if cache else 4)
    assert [line.split(": ")[0][-5:] for line in data.left_out(damaged)] == ["b.png"]


@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_an_epoch_of_a_strict_data_set_stops(damaged, backend):
    batches = data.batches(data.Strict(damaged), (32, 32), 1, backend=backend)
    with pytest.raises(data.DataError, match=r"b\.png: cannot be read as an image") as caught, batches.rows.raising():
        _ = list(batches) if backend == "tf" else [batches[i] for i in range(batches.num_batches)]
    assert "\n" not in str(caught.value) and not damaged.skipped


def test_other_errors_are_raised_as_they_are(damaged):
    with pytest.raises(ZeroDivisionError), data.batches(damaged, (32, 32), 1).rows.raising():
        _ = 1 / 0


def test_a_strict_data_set_is_the_data_set(coco_folder):
    coco = data.Coco(*coco_folder([SQUARE, SQUARE]))
    found = data.Subset(data.Strict(coco), [0])
    assert found.strict and not coco.strict and found.class_names == coco.class_names and len(found) == 1
    assert found.labels_at(0).tolist() == [1, 1] and len(found.coco_annotations(0)) == 2
    np.testing.assert_array_equal(found[0]["masks"], coco[0]["masks"])


def test_annotations_that_a_reader_leaves_out_stop_at_once(coco_folder):
    flat = {**SQUARE, "bbox": [2, 1, 0, 3]}
    with pytest.raises(data.DataError, match=r"10: its box has no width \(and 1 more\)"):
        data.Strict(data.Coco(*coco_folder([flat, flat, SQUARE])))


def test_annotations_found_to_be_unusable_stop_when_they_are_read(coco_folder):
    found = data.Strict(data.Coco(*coco_folder([SQUARE, EMPTY])))
    with pytest.raises(data.DataError, match="11: its mask is empty"):
        found[0]


def test_what_is_left_out_is_counted_and_listed(coco_folder, capsys, monkeypatch):
    path, folder = coco_folder([SQUARE, EMPTY, {**SQUARE, "bbox": [2, 1, 0, 3]}], images=("a.png", "b.png"))
    (folder / "b.png").write_bytes(b"")
    coco = data.Coco(path, folder)
    assert [coco[0]["image_id"]] == [0]
    strict.print_left_out(coco)
    assert "annotations: 2\n  annotation 12: its box has no width\n  annotation 11:" in capsys.readouterr().err
    assert data.cache.read_or_skip(coco, 1) is None
    part = data.Subset(coco, [0])
    monkeypatch.setattr(strict, "SHOWN", 1)
    strict.print_left_out(coco, part)
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].endswith(": 3") and "b.png: cannot be read" in printed[1] and printed[2] == "  and 2 more"


def test_nothing_is_printed_where_all_is_used(coco_folder, capsys):
    strict.print_left_out(data.Coco(*coco_folder([SQUARE])))
    assert capsys.readouterr().err == ""


class FindsNothing:
    num_classes = 2

    def detect(self, images, score_threshold, max_detections):
        return [{"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)} for _ in images]


def test_scores_skip_or_stop(damaged, caplog):
    with caplog.at_level(logging.WARNING):
        evaluation.coco_scores(FindsNothing(), damaged, kinds=("bbox",))
    assert len(data.left_out(damaged)) == 1 and "1 of 4 images could not be read" in caplog.text
    with pytest.raises(data.DataError, match=r"b\.png"):
        evaluation.coco_scores(FindsNothing(), data.Strict(damaged), kinds=("bbox",))
