"""The SavedModel, in a process that has only TensorFlow, gives the same as `detect`."""

import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.inference.export import reconfigured
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.models.base import InstanceModel

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
np.savez(folder + "/outputs.npz", **out)
assert not [m for m in sys.modules if m.startswith("keras_maskrcnn")]
"""


@pytest.fixture(scope="module")
def served(make, pyramid, tmp_path_factory):
    """A model, images, and the outputs of the SavedModel in a process that has only TensorFlow."""
    folder = tmp_path_factory.mktemp("served")
    model = make(
        **pyramid,
        image_size=(64, 96),
        detection={"score_threshold": 0.2, "max_detections": 10, "paste": "whole_pixels"},
        stretch=(1, 99.8),
    )
    shapes = data.Shapes(4, image_size=(90, 70), seed=2, object_size=(20, 40))
    images = {
        "same": np.random.default_rng(0).integers(20, 60, (1, 64, 96, 3)).astype("uint8"),
        "wide": np.random.default_rng(1).integers(0, 255, (1, 50, 200, 3)).astype("uint8"),
        "pair": np.stack([shapes[0]["image"], shapes[1]["image"]]),
        "dark": np.zeros((1, 30, 30, 3), "uint8"),
    }
    np.savez(folder / "images.npz", **images)
    for i, image in enumerate((images["wide"][0], images["pair"][0])):
        Image.fromarray(image).save(folder / f"{i}.png")
    model.export(folder / "model")
    process = subprocess.run([sys.executable, "-c", CLIENT, str(folder)], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    return model, images, dict(np.load(folder / "outputs.npz")), folder


def check(model, image, output, row):
    """Compares the outputs of the SavedModel for one image with `detect`."""
    expected = model.detect(image, score_threshold=0.2)
    count = int(output["num_detections"][row])
    assert count == len(expected["scores"])
    height, width = image.shape[:2]
    boxes = output["detection_boxes"][row, :count][:, [1, 0, 3, 2]] * [width, height, width, height]
    np.testing.assert_allclose(boxes, expected["boxes"], atol=0.05)
    np.testing.assert_allclose(output["detection_scores"][row, :count], expected["scores"], atol=1e-4)
    np.testing.assert_array_equal(output["detection_classes"][row, :count], expected["labels"])
    assert (output["detection_scores"][row, count:] == 0).all()


@pytest.mark.parametrize("name", ["same", "wide", "pair", "dark"])
def test_arrays_of_any_size_and_batch(served, name):
    model, images, outputs, _ = served
    output = {key.split("/")[1]: value for key, value in outputs.items() if key.startswith(f"{name}/")}
    for row, image in enumerate(images[name]):
        check(model, image, output, row)


def test_files_of_unequal_sizes(served):
    model, images, outputs, _ = served
    output = {key.split("/")[1]: value for key, value in outputs.items() if key.startswith("bytes/")}
    check(model, images["wide"][0], output, 0)
    check(model, images["pair"][0], output, 1)


def test_types_and_names_equal_those_of_tensorflow_detection_models(served):
    outputs = served[2]
    types = {key.split("/")[1]: value.dtype.name for key, value in outputs.items() if key.startswith("same/")}
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


def check_broken(model, function, image):
    """Serves a broken file between two good ones, and batches without any good file."""
    import tensorflow as tf

    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    good = encoded.getvalue()
    for broken in (b"", b"not an image", good[:200]):
        output = {k: v.numpy() for k, v in function(image_bytes=tf.constant([good, broken, good])).items()}
        check(model, image, output, 0)
        check(model, image, output, 2)
        assert output["num_detections"].tolist()[1] == 0
        assert all((values[1] == 0).all() for values in output.values())
    for files in ([], [b"not an image"]):
        output = function(image_bytes=tf.constant(files, tf.string))
        assert {name: values.shape[0] for name, values in output.items()} == dict.fromkeys(output, len(files))
        assert not tf.reduce_any(output["num_detections"] > 0)


def test_a_broken_file_has_no_detections_and_the_others_have_theirs(served):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(served[3] / "model"))
    check_broken(served[0], loaded.signatures["serve_bytes"], served[1]["pair"][0])


def test_a_batch_of_no_images_has_no_rows(served, client):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(served[3] / "model"))
    output = loaded.signatures["serving_default"](images=tf.zeros((0, 30, 40, 3), tf.uint8))
    assert all(values.shape[0] == 0 for values in output.values()) and client.detect([]) == []


def test_every_output_of_a_broken_file_is_empty(make, tmp_path):
    """Also where the network finds an object in any image."""
    import tensorflow as tf

    class Everywhere(InstanceModel):
        OUTPUTS = (*OUTPUTS, Output("name", exported="name"))

        def canvas_stride(self):
            return 1

        def call(self, inputs, training=False):
            boxes = keras.ops.tile(keras.ops.flip(inputs["sizes"], axis=1)[:, None], (1, 1, 2))
            one = keras.ops.ones_like(boxes[..., 0])
            labels = keras.ops.cast(one, "int32")
            return {"boxes": boxes, "scores": one, "labels": labels, "name": labels, "valid": one > 0}

    Everywhere(1, image_size=(8, 8)).export(tmp_path / "model")
    function = tf.saved_model.load(str(tmp_path / "model")).signatures["serve_bytes"]
    encoded = io.BytesIO()
    Image.new("RGB", (4, 2)).save(encoded, "JPEG")
    found = function(image_bytes=tf.constant([b"?", encoded.getvalue()]))
    assert found["num_detections"].numpy().tolist() == [0, 1]
    for name in ("name", "detection_classes", "detection_scores"):
        assert found[name].numpy().tolist() == [[0], [1]]
    np.testing.assert_allclose(found["detection_boxes"], [[[0] * 4], [[1] * 4]])


def test_a_model_without_a_canvas_serves_images_of_all_sizes(make, tmp_path):
    """Each image has the same canvas as in `detect`, and so the same detections."""
    import tensorflow as tf

    model = make(
        resize={"shorter": 64, "longer": 96, "rounding": "down", "antialias": False},
        detection={"score_threshold": 0.2, "max_detections": 10},
    )
    model.export(tmp_path / "model")
    client = SavedModel(tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    described = json.loads((tmp_path / "model" / "assets" / "model.json").read_text())
    assert described["detection"]["paste"] == "continuous" and described["placement"]["stride"] == 16
    wide = np.random.default_rng(0).integers(0, 255, (130, 195, 3)).astype("uint8")
    tall = np.ascontiguousarray(wide.swapaxes(0, 1))
    for image in (wide, tall, np.ascontiguousarray(wide[:40]), np.ascontiguousarray(wide[:, :33])):
        output = loaded.signatures["serving_default"](images=tf.constant(image[None]))
        check(model, image, {name: value.numpy() for name, value in output.items()}, 0)
    ours, theirs = (m.detect(wide, score_threshold=0.2) for m in (model, client))
    np.testing.assert_array_equal(ours["masks"], theirs["masks"])
    files = []
    for image in (tall, wide):
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "PNG")
        files.append(encoded.getvalue())
    output = {k: v.numpy() for k, v in loaded.signatures["serve_bytes"](image_bytes=tf.constant(files)).items()}
    check(model, tall, output, 0)
    check(model, wide, output, 1)
    check_broken(model, loaded.signatures["serve_bytes"], wide)


def three_levels(dtype):
    """A functional Keras model, each layer with the dtype policy."""
    x = inputs = keras.Input((None, None, 3), name="images")
    outputs = {}
    for level in range(1, 5):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name=f"conv{level}", dtype=dtype)(x)
        outputs[f"C{level}"] = x
    return keras.Model(inputs, {level: outputs[level] for level in ("C2", "C3", "C4")}, name="three_levels")


@pytest.mark.parametrize(
    "backbone", [lambda dtype: {"name": "resnet10", "width": 8}, lambda dtype: {"name": "simple_cnn"}, three_levels]
)
def test_another_precision_equals_a_model_made_with_it(backbone, make, pyramid):
    dtypes = ("float32", "mixed_bfloat16")
    models = {
        dtype: make(**{**pyramid, "backbone": backbone(dtype)}, dtype=dtype, image_size=(64, 96)) for dtype in dtypes
    }
    inputs = {"images": np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype("float32")}
    inputs["sizes"] = np.float32([[64, 96]])
    for before, after in (dtypes, dtypes[::-1]):
        direct, changed = models[after], reconfigured(models[before], dtype=after)
        direct.set_weights(models[before].get_weights())
        expected, config = direct.get_config(), changed.get_config()
        assert {**config, "backbone": None} == {**expected, "backbone": None}
        policies = [[layer.dtype_policy.name for layer in model._flatten_layers()] for model in (direct, changed)]
        assert policies[0] == policies[1] and after in policies[0]
        for name, values in direct(inputs).items():
            np.testing.assert_array_equal(changed(inputs)[name], values)


def test_other_thresholds_leave_everything_else(make):
    model = make(detection={"min_size": 2.0, "nms_iou": 0.4, "paste": "whole_pixels"})
    changed = reconfigured(model, score_threshold=0.25, max_detections=7)
    expected = {**model.detection.asdict(), "score_threshold": 0.25, "max_detections": 7}
    assert changed.get_config() == {**model.get_config(), "detection": expected}
    assert all((old == new).all() for old, new in zip(model.get_weights(), changed.get_weights(), strict=True))
    assert reconfigured(model) is model
    with pytest.raises(ValueError, match=r"nms_iou=1\.5 must be a number from 0 to 1"):
        reconfigured(model, nms_iou=1.5)


def test_a_second_export_leaves_no_names_of_the_first(brightness, tmp_path):
    folder = tmp_path / "model"
    brightness(1, image_size=(8, 8), class_names=["a"]).export(folder)
    listed = folder / "assets" / "class_names.txt"
    assert listed.read_text().splitlines() == SavedModel(folder).class_names == ["a"]
    brightness(1, image_size=(8, 8)).export(folder)
    assert SavedModel(folder).class_names is None and not listed.exists()
