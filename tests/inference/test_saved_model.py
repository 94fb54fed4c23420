"""`SavedModel.detect`, with a SavedModel of constant outputs."""

import argparse
import json
import os
import resource

import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn.backend.tensorflow.network import signature
from keras_maskrcnn.data import DataError
from keras_maskrcnn.inference import saved_model
from keras_maskrcnn.inference.saved_model import SavedModel

DESCRIPTION = {
    "num_classes": 2,
    "class_names": None,
    "placement": {
        "image_size": None,
        "resize": {"shorter": 20, "longer": 40, "rounding": "nearest", "antialias": True, "multiple": None},
        "stride": 4,
    },
    "detection": {"score_threshold": None, "max_detections": 5},
    "outputs": [
        {"name": "boxes", "kind": "boxes", "exported": "detection_boxes", "caption": None},
        {"name": "labels", "kind": "values", "exported": "detection_classes", "caption": None},
        {"name": "scores", "kind": "values", "exported": "detection_scores", "caption": None},
        {"name": "masks", "kind": "box_masks", "exported": "detection_masks", "caption": None},
        {"name": "corners", "kind": "points", "exported": None, "caption": None},
    ],
}


class Constant(tf.Module):
    """Returns the same two objects and a third that is not valid, in pixels of a canvas of 20 x 40."""

    @tf.function(input_signature=list(signature(3).values()))
    def detect(self, images, sizes, score_threshold, nms_iou, max_detections):
        boxes = tf.constant([[[10.0, 0.0, 30.0, 10.0], [0.0, 10.0, 40.0, 20.0], [0.0, 0.0, 40.0, 20.0]]])
        found = {
            "boxes": boxes,
            "labels": tf.constant([[2, 1, 1]]),
            "scores": tf.constant([[0.9, 0.4, 0.3]]),
            "masks": tf.ones((1, 3, 28, 28)),
            "corners": tf.concat([boxes[..., None, :2], [[[[2.0]]] * 3]], axis=-1),
            "valid": tf.constant([[True, True, False]]),
        }
        used = tf.reduce_sum(images) + tf.reduce_sum(sizes) + score_threshold + nms_iou + tf.cast(max_detections, float)
        keep = {name: value for name, value in found.items() if value.dtype == tf.float32}
        return {**found, **{name: value + 0 * used for name, value in keep.items()}}


@pytest.fixture
def folder(tmp_path):
    module = Constant()
    folder = tmp_path / "model"
    tf.saved_model.save(module, str(folder), signatures={"detect_on_canvas": module.detect})
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "model.json").write_text(json.dumps(DESCRIPTION))
    return folder


def test_boxes_points_and_masks_are_in_pixels_of_the_image(folder):
    found = SavedModel(folder).detect(np.zeros((40, 80, 3), np.uint8), score_threshold=0.0)
    np.testing.assert_allclose(found["boxes"], [[20, 0, 60, 20], [0, 20, 80, 40]])
    np.testing.assert_allclose(found["corners"], [[[20, 0, 2]], [[0, 20, 2]]])
    np.testing.assert_array_equal(found["labels"], [2, 1])
    np.testing.assert_allclose(found["scores"], [0.9, 0.4])
    expected = np.zeros((40, 80), bool)
    expected[0:20, 20:60] = True
    assert (found["masks"][0] & ~expected).sum() == 0
    assert found["masks"][0].sum() > 0.9 * expected.sum()
    assert [found[key].dtype for key in ("boxes", "labels", "scores", "masks")] == ["float32", "int32", "float32", bool]


def test_thresholds_apply(folder):
    model, image = SavedModel(folder), np.zeros((40, 80, 3), np.uint8)
    assert len(model.detect(image)["labels"]) == 1
    assert len(model.detect(image, score_threshold=0.0, max_detections=1)["labels"]) == 1
    nothing = model.detect(image, score_threshold=0.95)
    assert nothing["boxes"].shape == (0, 4) and nothing["masks"].shape == (0, 40, 80)
    with pytest.raises(ValueError, match="max_detections=0 must be"):
        model.detect(image, max_detections=0)
    with pytest.raises(ValueError, match="batch_size=0 must be"):
        model.detect([image], batch_size=0)


def test_a_list_of_unequal_images_gives_a_list(folder):
    images = [np.zeros((40, 80, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)]
    found = SavedModel(folder).detect(images)
    assert [detections["masks"].shape[1:] for detections in found] == [(40, 80), (10, 10)]


def test_classes_come_from_the_description(folder):
    assert SavedModel(folder).class_names is None and SavedModel(folder).num_classes == 2
    description = {**DESCRIPTION, "class_names": ["cat", "traffic\nlight é"]}
    (folder / "assets" / "model.json").write_text(json.dumps(description))
    assert SavedModel(folder).class_names == ["cat", "traffic\nlight é"]


def test_other_folders_are_rejected(tmp_path, folder):
    with pytest.raises(DataError, match=r"no saved_model\.pb"):
        SavedModel(tmp_path)
    (folder / "assets" / "model.json").unlink()
    with pytest.raises(DataError, match=r"has no assets/model\.json: export the model again from its \.keras file"):
        SavedModel(folder)


@pytest.mark.parametrize("text", ["{", json.dumps({**DESCRIPTION, "placement": None})], ids=["json", "placement"])
def test_a_damaged_description_is_one_line(text, folder):
    (folder / "assets" / "model.json").write_text(text)
    with pytest.raises(DataError, match=r"model: its description \(model\.json\) is damaged"):
        SavedModel(folder)


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Function from class names to the folder of an export of `Constant`, always the same."""
    module = Constant()
    monkeypatch.setattr(saved_model, "_signatures", lambda model: {"detect_on_canvas": module.detect})
    monkeypatch.setattr(saved_model, "description", lambda model: {**DESCRIPTION, "class_names": model.class_names})

    def write(*class_names):
        model = argparse.Namespace(variables=[], class_names=list(class_names) or None)
        saved_model.saved_model(model, tmp_path / "exported")
        return tmp_path / "exported"

    return write


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_export_replaces_the_one_before_and_keeps_other_files(export):
    folder = export("cat", "dog")
    assert SavedModel(folder).class_names == ["cat", "dog"]
    before = names(folder)
    (folder / "assets" / "mine.txt").write_text("of somebody else")
    (folder / ".part" / "variables").mkdir(parents=True)  # of a process that was killed
    (folder / ".part" / "variables" / "half").write_bytes(b"half")
    export()
    assert SavedModel(folder).class_names is None
    assert names(folder) == sorted({*before, "assets/mine.txt"} - {"assets/class_names.txt"})


def test_an_export_that_cannot_be_written_keeps_the_one_before(export, request):
    folder = export("cat", "dog")
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    # TensorFlow has another class for each error of the system, and for this one no message but the path.
    with pytest.raises(OSError, match=r"^\S+/exported/\S*: the SavedModel cannot be written \(OutOfRangeError: .*\)$"):
        export("bird")
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert not (folder / ".part").exists()


def test_an_export_that_is_killed_while_the_files_get_their_places_is_none(export, monkeypatch):
    folder = export("cat", "dog")
    replace = os.replace

    def killed(new, place):
        if place.name == "saved_model.pb":
            raise KeyboardInterrupt
        replace(new, place)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export("bird")
    with pytest.raises(DataError, match=r"no saved_model\.pb"):
        SavedModel(folder)
