"""The SavedModel, in a process that has TensorFlow alone, gives what `detect` gives."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.inference.saved_model import SavedModel

CLIENT = """
import sys
import numpy as np, tensorflow as tf
folder = sys.argv[1]
served = tf.saved_model.load(folder + "/model")
stored = np.load(folder + "/images.npz")
out = {}
for name in ("same", "wide", "pair", "dark"):
    found = served.signatures["serving_default"](images=tf.constant(stored[name]))
    out.update({f"{name}/{key}": value.numpy() for key, value in found.items()})
files = [open(f"{folder}/{i}.png", "rb").read() for i in range(2)]
found = served.signatures["serve_bytes"](image_bytes=tf.constant(files))
out.update({f"bytes/{key}": value.numpy() for key, value in found.items()})
np.savez(folder + "/answers.npz", **out)
assert not [m for m in sys.modules if m.startswith("keras_maskrcnn")]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model, images, and what a bare TensorFlow process answered."""
    folder = tmp_path_factory.mktemp("served")
    model = MaskRCNN(
        3,
        {"name": "resnet10", "width": 8, "norm": "group"},
        image_size=(64, 96),
        class_names=["a", "b", "c"],
        fpn_channels=16,
        proposals={"pre_nms": 50, "post_nms": 20},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        detection={"score_threshold": 0.2, "max_detections": 10, "paste": "whole_pixels"},
    )
    shapes = data.Shapes(4, image_size=(90, 70), seed=2, object_size=(20, 40))
    images = {
        "same": np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3)).astype("uint8"),
        "wide": np.random.default_rng(1).integers(0, 255, (1, 50, 200, 3)).astype("uint8"),
        "pair": np.stack([shapes[0]["image"], shapes[1]["image"]]),
        "dark": np.zeros((1, 30, 30, 3), "uint8"),
    }
    np.savez(folder / "images.npz", **images)
    for i, image in enumerate((images["wide"][0], images["pair"][0])):
        Image.fromarray(image).save(folder / f"{i}.png")
    model.export(folder / "model")
    answer = subprocess.run([sys.executable, "-c", CLIENT, str(folder)], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return model, images, dict(np.load(folder / "answers.npz")), folder


def check(model, image, answer, row):
    """One image's served answer against `detect`."""
    expected = model.detect(image, score_threshold=0.2)
    count = int(answer["num_detections"][row])
    assert count == len(expected["scores"])
    height, width = image.shape[:2]
    boxes = answer["detection_boxes"][row, :count][:, [1, 0, 3, 2]] * [width, height, width, height]
    np.testing.assert_allclose(boxes, expected["boxes"], atol=0.05)
    np.testing.assert_allclose(answer["detection_scores"][row, :count], expected["scores"], atol=1e-4)
    np.testing.assert_array_equal(answer["detection_classes"][row, :count], expected["labels"])
    assert (answer["detection_scores"][row, count:] == 0).all()


@pytest.mark.parametrize("name", ["same", "wide", "pair", "dark"])
def test_arrays_of_any_size_and_batch(served, name):
    model, images, answers, _ = served
    answer = {key.split("/")[1]: value for key, value in answers.items() if key.startswith(f"{name}/")}
    for row, image in enumerate(images[name]):
        check(model, image, answer, row)


def test_files_of_unequal_sizes(served):
    model, images, answers, _ = served
    answer = {key.split("/")[1]: value for key, value in answers.items() if key.startswith("bytes/")}
    check(model, images["wide"][0], answer, 0)
    check(model, images["pair"][0], answer, 1)


def test_types_and_names_equal_those_of_tensorflow_detection_models(served):
    answers = served[2]
    types = {key.split("/")[1]: value.dtype.name for key, value in answers.items() if key.startswith("same/")}
    assert types == {
        "detection_boxes": "float32",
        "detection_classes": "int64",
        "detection_masks": "float32",
        "detection_scores": "float32",
        "num_detections": "int32",
    }


def test_keras_layer_loads_it(served):
    import keras

    layer = keras.layers.TFSMLayer(str(served[3] / "model"), call_endpoint="serving_default")
    found = layer(served[1]["same"])
    np.testing.assert_allclose(found["detection_scores"], served[2]["same/detection_scores"], atol=1e-5)


@pytest.fixture(scope="module")
def client(served):
    return SavedModel(served[3] / "model")


def test_python_client_gives_the_same_detections(served, client):
    model, images, _, _ = served
    assert client.class_names == ["a", "b", "c"]
    for settings in ({"score_threshold": 0.2}, {"score_threshold": 0.0, "nms_iou": 0.2, "max_detections": 3}):
        for ours, theirs in zip(*(m.detect([*images["pair"]], **settings) for m in (model, client)), strict=True):
            assert len(ours["scores"]) > 0 and set(ours) == set(theirs)
            for name, values in ours.items():
                np.testing.assert_allclose(theirs[name], values, atol=1e-4, err_msg=name)


def test_jpeg_bytes_are_read(served, client):
    import tensorflow as tf

    encoded = io.BytesIO()
    Image.fromarray(served[1]["pair"][0]).save(encoded, "JPEG")
    found = tf.saved_model.load(str(served[3] / "model")).signatures["serve_bytes"](
        image_bytes=tf.constant([encoded.getvalue()])
    )
    assert found["detection_boxes"].shape[0] == 1


def test_a_model_without_a_canvas_serves_images_of_all_sizes(tmp_path):
    """Each has the canvas that `detect` gives it, and so the same detections."""
    import tensorflow as tf

    model = MaskRCNN(
        2,
        {"name": "resnet10", "width": 8, "norm": "group"},
        resize={"shorter": 64, "longer": 96, "rounding": "down", "antialias": False},
        fpn_channels=16,
        proposals={"pre_nms": 50, "post_nms": 20},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        detection={"score_threshold": 0.2, "max_detections": 10},
    )
    model.export(tmp_path / "model")
    client = SavedModel(tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    described = json.loads((tmp_path / "model" / "assets" / "model.json").read_text())
    assert described["detection"]["paste"] == "continuous" and described["placement"]["stride"] == 32
    wide = np.random.default_rng(0).integers(0, 255, (130, 195, 3)).astype("uint8")
    tall = np.ascontiguousarray(wide.swapaxes(0, 1))
    for image in (wide, tall, np.ascontiguousarray(wide[:40]), np.ascontiguousarray(wide[:, :33])):
        answer = loaded.signatures["serving_default"](images=tf.constant(image[None]))
        check(model, image, {name: value.numpy() for name, value in answer.items()}, 0)
    ours, theirs = (m.detect(wide, score_threshold=0.2) for m in (model, client))
    np.testing.assert_array_equal(ours["masks"], theirs["masks"])
    files = []
    for image in (tall, wide):
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "PNG")
        files.append(encoded.getvalue())
    answer = {k: v.numpy() for k, v in loaded.signatures["serve_bytes"](image_bytes=tf.constant(files)).items()}
    check(model, tall, answer, 0)
    check(model, wide, answer, 1)
