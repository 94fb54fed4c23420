"""Answers of models with other outputs than masks."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from serving import Model

from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Detections, Output
from keras_maskrcnn.serve import schemas
from keras_maskrcnn.serve.answers import overlay, result
from keras_maskrcnn.serve.batching import Computed
from keras_maskrcnn.serve.served import Served

BOXES = {
    "boxes": np.float32([[2, 3, 12, 8], [0, 0, 1.234, 2]]),
    "labels": np.int32([2, 1]),
    "scores": np.float32([0.98768, 0.5]),
}
MAP = Output("semantic", "map", exported="semantic_predictions")


def answer(arrays, schema, names=("a", "b"), **options):
    """The answer of a model with these outputs for an image of 20 x 10 pixels, after a passage through JSON."""
    served = Served("some", Model(list(names or ()), schema))
    computed = Computed(Detections(arrays, schema), 0.123456, 0.5, 1)
    found = json.loads(json.dumps(result(served, (10, 20), computed, **options), allow_nan=False))
    schemas.Result.model_validate(found)
    return found


def test_a_model_without_masks_states_boxes_and_their_area():
    found = answer(BOXES, OUTPUTS)
    assert (found["width"], found["height"], found["seconds"]) == (20, 10, {"queue": 0.1235, "network": 0.5})
    first, second = found["objects"]
    assert first == {"label": 2, "class": "b", "score": 0.9877, "box": [2, 3, 12, 8], "area": 50}
    assert second["box"] == [0, 0, 1.23, 2] and second["area"] == 2.47


def test_classes_without_names_have_their_number():
    assert [thing["class"] for thing in answer(BOXES, OUTPUTS, names=None)["objects"]] == ["2", "1"]


def test_keypoints_and_values_are_in_the_object_and_inner_outputs_are_not():
    points = Output("keypoints", "points", exported="p"), Output("filled", exported="f"), Output("proposals", "boxes")
    arrays = {"keypoints": np.ones((2, 1, 3)), "filled": np.float32([0.25, 1]), "proposals": BOXES["boxes"]}
    first, _ = answer({**BOXES, **arrays}, (*OUTPUTS, *points))["objects"]
    assert first["keypoints"] == [[1, 1, 1]] and first["filled"] == 0.25 and "proposals" not in first


@pytest.mark.parametrize("objects", [True, False])
def test_a_map_is_a_code_for_each_class_in_it(objects):
    semantic = np.zeros((10, 20), np.uint8)
    semantic[2:4, 5:9], semantic[6:] = 2, 1
    schema = (*(OUTPUTS if objects else ()), MAP)
    found = answer({**(BOXES if objects else {}), "semantic": semantic}, schema)
    assert len(found["objects"]) == (2 if objects else 0)
    first, second = found["semantic"]
    assert (first["label"], second["label"], first["area"], second["area"]) == (1, 2, 80, 8)
    # The names of a model of objects are those of its objects.
    assert [first["class"], second["class"]] == (["1", "2"] if objects else ["a", "b"])
    np.testing.assert_array_equal(mask_tools.decode(second["segmentation"]), semantic == 2)


def test_a_map_can_be_drawn():
    found = Detections({"semantic": np.ones((10, 20), np.uint8)}, (MAP,))
    assert overlay(np.zeros((10, 20, 3), np.uint8), found, ["a"]).startswith(b"\x89PNG")
