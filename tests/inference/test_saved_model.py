"""A SavedModel behind `detect`, with a hand-made one whose answers are known."""

import numpy as np
import pytest
import tensorflow as tf
from keras_maskrcnn.saved_model import SavedModel

from keras_maskrcnn.data import DataError


class Constant(tf.Module):
    """Always answers the same two objects and a third that `num_detections` excludes."""

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def serve(self, images):
        boxes = [[0.0, 0.25, 0.5, 0.75], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
        answer = {
            "detection_boxes": tf.constant([boxes]),
            "detection_classes": tf.constant([[2, 1, 1]], tf.int64),
            "detection_scores": tf.constant([[0.9, 0.4, 0.3]]),
            "detection_masks": tf.ones((1, 3, 28, 28)),
            "num_detections": tf.constant([2]),
        }
        return {name: value + tf.cast(0 * tf.reduce_sum(images), value.dtype) for name, value in answer.items()}


@pytest.fixture
def folder(tmp_path):
    module = Constant()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": module.serve})
    return tmp_path / "model"


def test_boxes_and_masks_come_back_in_pixels(folder):
    found = SavedModel(folder).detect(np.zeros((40, 80, 3), np.uint8), score_threshold=0.0)
    np.testing.assert_allclose(found["boxes"], [[20, 0, 60, 20], [0, 20, 80, 40]])
    np.testing.assert_array_equal(found["labels"], [2, 1])
    np.testing.assert_allclose(found["scores"], [0.9, 0.4])
    expected = np.zeros((40, 80), bool)
    expected[0:20, 20:60] = True
    assert (found["masks"][0] & ~expected).sum() == 0
    assert found["masks"][0].sum() > 0.9 * expected.sum()
    assert [found[key].dtype for key in ("boxes", "labels", "scores", "masks")] == ["float32", "int32", "float32", bool]


def test_thresholds_leave_out_more(folder):
    model, image = SavedModel(folder), np.zeros((40, 80, 3), np.uint8)
    assert len(model.detect(image)["labels"]) == 1
    assert len(model.detect(image, score_threshold=0.0, max_detections=1)["labels"]) == 1
    nothing = model.detect(image, score_threshold=0.95)
    assert nothing["boxes"].shape == (0, 4) and nothing["masks"].shape == (0, 40, 80)


def test_a_list_of_unequal_images_gives_a_list(folder):
    images = [np.zeros((40, 80, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)]
    answers = SavedModel(folder).detect(images)
    assert [answer["masks"].shape[1:] for answer in answers] == [(40, 80), (10, 10)]


def test_class_names_come_from_the_assets(folder):
    assert SavedModel(folder).class_names is None
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "class_names.txt").write_text("cat\ntraffic light\n", encoding="utf-8")
    assert SavedModel(folder).class_names == ["cat", "traffic light"]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no saved_model\.pb"):
        SavedModel(tmp_path)
    module = tf.Module()
    module.serve = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec((), tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"serving_default": module.serve})
    with pytest.raises(DataError, match="no detection signature"):
        SavedModel(tmp_path / "other")
