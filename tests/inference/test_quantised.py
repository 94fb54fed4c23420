"""INT8 files for OpenVINO: their layers multiply in 8 bits, and their detections are near those of the model."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import cli
from keras_maskrcnn.cli.common import load
from keras_maskrcnn.inference.export import opened

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("nncf", reason="the extra int8 is not installed")

THRESHOLD = 0.2
LAYERS = ("Convolution", "FullyConnected")  # OpenVINO's names while it runs


@pytest.fixture(scope="module")
def photos(images, tmp_path_factory):
    """A folder with three photos, a file that is not one, and a text."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(images[:3]):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not read")
    return folder


@pytest.fixture(scope="module")
def files(make, photos, tmp_path_factory):
    """The model, and its files in float32 and INT8, written by the command line."""
    folder = tmp_path_factory.mktemp("int8")
    detection = {"score_threshold": THRESHOLD, "max_detections": 10, "paste": "whole_pixels"}
    # Its layers are long enough for the weights to outweigh the operations around them.
    backbone = {"name": "resnet10", "width": 16, "norm": "batch"}
    model = make(image_size=(64, 96), backbone=backbone, box_stage={"width": 128}, detection=detection)
    path = folder / "model.keras"
    model.save(path)
    for name, options in (("float32.xml", []), ("int8.xml", ["--int8", str(photos)])):
        assert cli.main(["export", "--model", str(path), "--output", str(folder / name), *options]) == 0
    return model, folder / "float32.xml", folder / "int8.xml"


def test_boxes_and_scores_are_near_those_of_the_model(files, images):
    model, _, small = files
    client = load(small)
    for ours, theirs in zip(*(m.detect(images, score_threshold=0.0) for m in (model, client)), strict=True):
        best = 5
        np.testing.assert_allclose(theirs["scores"][:best], ours["scores"][:best], atol=0.05)
        nearest = np.abs(theirs["boxes"][:, None] - ours["boxes"][None]).max(axis=-1).min(axis=0)
        assert np.median(nearest) < 2.0
    assert not np.array_equal(ours["scores"], theirs["scores"])


def test_layers_multiply_in_eight_bits(files):
    kinds = {}
    for path in files[1:]:
        compiled = openvino.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        shown = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        found = [one["runtimePrecision"] for one in shown if str(one["layerType"]).startswith(LAYERS)]
        kinds[path.name] = collections.Counter(str(one).lower() for one in found)
    assert set(kinds["float32.xml"]) == {"f32"} and kinds["float32.xml"].total() > 10
    floats = kinds["int8.xml"].pop("f32", 0)
    assert floats <= 2  # classes and boxes
    assert set(kinds["int8.xml"]) <= {"i8", "u8"} and kinds["int8.xml"].total() > 10


def test_the_file_is_smaller_and_says_that_it_is_quantised(files, capsys):
    weights = [path.with_suffix(".bin").stat().st_size for path in files[1:]]
    assert weights[1] < 0.5 * weights[0]
    contents = [json.loads(openvino.Core().read_model(path).get_rt_info("model.json").value) for path in files[1:]]
    assert contents[1] == {**contents[0], "precision": "int8", "calibration_images": 3}
    assert cli.main(["info", "--model", str(files[2])]) == 0
    assert "int8" in capsys.readouterr().out


def test_it_runs_in_bfloat16_too(files, images):
    found = [opened(files[2], precision=name).detect(images[0]) for name in ("float32", "bfloat16")]
    np.testing.assert_allclose(*(one["scores"][:3] for one in found), atol=0.05)
