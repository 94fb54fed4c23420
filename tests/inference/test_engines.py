"""ONNX and OpenVINO files give the detections of `detect`: read by this library, and run by their engines alone."""

import json
import os
import sys

import keras
import numpy as np
import pytest
from agreement import check, check_bare

from keras_maskrcnn import cli
from keras_maskrcnn.cli.common import load
from keras_maskrcnn.data import DataError
from keras_maskrcnn.inference import TestTimeAugmentation
from keras_maskrcnn.inference.export import format_of, opened
from keras_maskrcnn.inference.exported import engine_description

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

NAMES = {"detection_boxes", "detection_classes", "detection_scores", "detection_masks", "num_detections"}
EMPTY = ("detection_masks", "detection_scores", "detection_classes")  # 0 in slots that are not in use
MODELS = {
    "canvas": {"image_size": (64, 96), "stretch": (1, 99.8)},
    "open": {"resize": {"shorter": 64, "longer": 96}},
    "open_pyramid": {"resize": {"shorter": 64, "longer": 96}},
}
# Each takes half a minute or more.
SLOW = (("canvas", "xml"), ("open", "onnx"), ("canvas", "onnx"), ("open_pyramid", "xml"), ("open_pyramid", "onnx"))
CASES = [("open", "xml"), *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]


def bare(path):
    """The file as a function of images, with its engine and nothing else."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path))
        assert [value.name for value in session.get_inputs()] == ["images"]
        names = [value.name for value in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))
    compiled = openvino.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [port.any_name for port in compiled.inputs] == ["images"]

    def run(images):
        found = compiled({"images": images})
        return {
            next(iter(port.names - {n for n in port.names if n.startswith("canvas_")})): v for port, v in found.items()
        }

    return run


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, make, pyramid, tmp_path_factory):
    """A model, and the file that it was exported to."""
    name, suffix = request.param
    detection = {"score_threshold": 0.2, "max_detections": 40, "paste": "whole_pixels"}
    parts = {} if name == "open" else pyramid
    model = make(**parts, **MODELS[name], detection=detection)
    path = tmp_path_factory.mktemp("engines") / f"{name}.{suffix}"
    model.export(path)
    return model, path


def test_the_file_gives_the_results_of_the_model(case, images):
    model, path = case
    client = load(path)
    assert client.class_names == ["a", "b", "c"] and client.image_type == model.image_type
    counts = []
    few = {"score_threshold": 0.0, "nms_iou": 0.2, "max_detections": 3}
    for limits in ({"score_threshold": 0.2}, few, {"score_threshold": 0.0, "nms_iou": 1.0}):
        for ours, theirs in zip(*(m.detect(images, **limits) for m in (model, client)), strict=True):
            check(ours, theirs)
            counts.append(len(ours["scores"]))
    assert min(counts) > 0 and max(counts) == 40, "all slots in use"
    assert len(client.detect(images[0], score_threshold=0.99)["scores"]) == 0
    with pytest.raises(ValueError, match="max_detections=41: the file has 40 per image; export it again with --max-d"):
        client.detect(images[0], max_detections=41)


def test_tiles_and_views_give_the_results_of_the_model(case, images):
    model, path = case
    client = load(path)
    settings = {"score_threshold": 0.25, "tiles": (64, 80), "overlap": 16}
    check(model.detect(images[1], **settings), client.detect(images[1], **settings))
    ours, theirs = (TestTimeAugmentation(m, flip=True).detect(images[0], score_threshold=0.3) for m in (model, client))
    check(ours, theirs)


def test_the_engine_alone_gives_the_results_of_the_model(case, images):
    model, path = case
    run = bare(path)
    for image in [*images, np.stack([images[3], images[3][::-1]])]:
        batch = image if image.ndim == 4 else image[None]
        found = run(batch)
        assert set(found) == NAMES
        for row, one in enumerate(batch):
            outputs = {name: values[row] for name, values in found.items()}
            check_bare(model.detect(one, score_threshold=0.2), outputs, one)
            assert not any(outputs[name][outputs["num_detections"] :].any() for name in EMPTY)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_thresholds_are_constants_of_the_file_and_arguments_of_the_reader(suffix, brightness, tmp_path):
    path = tmp_path / f"model{suffix}"
    brightness(1, image_size=(8, 8), detection={"score_threshold": 0.3, "max_detections": 1}).export(path)
    images = np.stack([np.full((4, 4, 3), level, "uint8") for level in (204, 51)])
    run = bare(path)
    found = run(images)
    assert found["num_detections"].tolist() == [1, 0] and run(images[1:])["num_detections"].tolist() == [0]
    np.testing.assert_allclose(found["detection_scores"][:, 0], [0.8, 0.2], atol=1e-5)
    client = load(path)
    for threshold, counts in ((None, [1, 0]), (0.1, [1, 1]), (0.9, [0, 0])):
        results = client.detect(list(images), score_threshold=threshold)
        assert [len(one["scores"]) for one in results] == counts
    np.testing.assert_allclose(client.detect(images[0])["boxes"], [[0, 0, 4, 4]])


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_the_network_reads_the_size_of_an_open_canvas_of_enlarged_images(suffix, brightness, tmp_path):
    class Bands(brightness):
        """The mean level of every second row."""

        def call(self, inputs, training=False):
            odd = keras.ops.cast(keras.ops.arange(keras.ops.shape(inputs["images"])[1]) % 2, "float32")
            return super().call({**inputs, "images": inputs["images"] * odd[:, None, None]}, training)

    model = Bands(1, resize={"scale": 2.0, "multiple": 4}, detection={"score_threshold": 0.1, "max_detections": 1})
    model.export(tmp_path / f"model{suffix}")
    client = load(tmp_path / f"model{suffix}")
    for size in ((4, 6), (10, 2)):
        ours, theirs = (m.detect(np.full((*size, 3), 200, "uint8")) for m in (model, client))
        np.testing.assert_allclose(theirs["scores"], ours["scores"], rtol=1e-5)
        np.testing.assert_allclose(theirs["boxes"], [[0, 0, *size[::-1]]])


def test_openvino_reports_no_export(brightness, tmp_path, monkeypatch):
    from openvino_telemetry import Telemetry
    from openvino_telemetry.utils.sender import TelemetrySender

    sent = []
    monkeypatch.setattr(TelemetrySender, "send", lambda self, backend, message: sent.append(message))
    monkeypatch.setenv("HOME", str(tmp_path))  # where nobody has forbidden it
    monkeypatch.delenv("CI", raising=False)
    Telemetry().init("other", "1", "id", "ga4", enable_opt_in_dialog=False, disable_in_ci=True)
    Telemetry().send_event("other", "event", "that is reported")
    assert len(sent) == 1
    brightness(1, image_size=(8, 8)).export(tmp_path / "model.xml")
    assert len(sent) == 1 and "CI" not in os.environ


def test_formats_and_their_suffixes():
    assert [format_of(name) for name in ("a", "a.onnx", "a.xml", "a.tflite")] == [
        "saved_model",
        "onnx",
        "openvino",
        "litert",
    ]
    assert format_of("a", "tf_saved_model") == "saved_model"
    with pytest.raises(ValueError, match=r"a: the output of the format onnx ends in \.onnx"):
        format_of("a", "onnx")
    with pytest.raises(ValueError, match=r"a\.xml: the output of the format saved_model is a folder"):
        format_of("a.xml", "saved_model")
    with pytest.raises(ValueError, match="format='coreml' is not one of saved_model, onnx"):
        format_of("a", "coreml")


@pytest.mark.parametrize("name", ["broken.onnx", "broken.xml", "foreign.onnx", "foreign.xml", "alone.xml"])
def test_other_files_are_one_line(name, tmp_path, capsys):
    import onnx

    path = tmp_path / name
    path.write_bytes(b"not a model")
    if name == "foreign.onnx":
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [value], [value])), path)
    if name == "foreign.xml":
        parameter = openvino.opset13.parameter([1], openvino.Type.f32, name="x")
        openvino.save_model(openvino.Model([openvino.opset13.relu(parameter)], [parameter], "g"), path)
    if name == "broken.xml":
        path.with_suffix(".bin").touch()
    reason = {
        "broken.onnx": "is not an ONNX file",
        "broken.xml": "is not an OpenVINO model",
        "alone.xml": "the weights are missing: alone.bin must lie beside it",
    }.get(name, "was not written by `export`")
    with pytest.raises(DataError, match=reason):
        load(path)
    assert cli.main(["predict", "--model", str(path), "x.png", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert name in error and reason in error and error.count("\n") == 1


def foreign(path, description):
    """Writes a model of one operation with a description into a file."""
    if path.suffix == ".xml":
        parameter = openvino.opset13.parameter([1], openvino.Type.f32, name="x")
        model = openvino.Model([openvino.opset13.relu(parameter)], [parameter], "g")
        model.set_rt_info(description, "model.json")
        openvino.save_model(model, path)
        return
    import onnx

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [value], [value]))
    onnx.helper.set_model_props(model, {"model.json": description})
    onnx.save(model, path)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_damaged_description_or_graph_is_one_line(suffix, brightness, tmp_path):
    path, model = tmp_path / f"m{suffix}", brightness(1, image_size=(8, 8))
    content = engine_description(model, model.placement, None)
    incomplete = [{key: content[key] for key in content if key != name} for name in ("batch", "placement")]
    for damaged in ("{", "[]", *map(json.dumps, [*incomplete, {**content, "outputs": [{"nam": "boxes"}]}])):
        foreign(path, damaged)
        with pytest.raises(DataError, match=rf"m\{suffix}: its description \(model.json\) is damaged"):
            opened(path)
    foreign(path, json.dumps(content))
    with pytest.raises(DataError, match=rf"m\{suffix}: its graph is damaged"):
        opened(path)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_a_missing_file_is_one_line(suffix, tmp_path):
    with pytest.raises(DataError, match=rf"m\{suffix}: no such file"):
        opened(tmp_path / f"m{suffix}")


def test_a_missing_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    (tmp_path / "m.xml").touch()
    with pytest.raises(
        DataError, match=r'm\.xml: needs the package openvino: pip install "keras3-maskrcnn\[openvino\]"'
    ):
        load(tmp_path / "m.xml")


@pytest.mark.slow
def test_one_canvas_for_images_of_one_size(make, tmp_path, images, capsys):
    """`export --image-size --batch`: images of other sizes are resized by the rule, or fitted into the canvas."""
    resize = {"scale": 1.0, "multiple": 32}
    model, path = make(resize=resize, detection={"max_detections": 10}), tmp_path / "m.xml"
    model.save(tmp_path / "model.keras")
    options = ["--image-size", "90", "90", "--batch", "2", "--score-threshold", "0.2"]
    assert cli.main(["export", "--model", str(tmp_path / "model.keras"), "--output", str(path), *options]) == 0
    assert f"openvino: {path}" in capsys.readouterr().out
    client = load(path)
    assert client.predictor.placement.place((40, 40)) == ((96, 96), (40, 40))
    assert client.predictor.placement.place((50, 200)) == ((96, 96), (24, 96))
    small = [images[3], images[3][:30]]
    model.image_size = (96, 96)  # the same canvas; the images below have its size
    whole = [np.pad(images[0], [(0, 32), (0, 0), (0, 0)])] * 3
    for ours, theirs in zip(*(m.detect(whole, score_threshold=0.2) for m in (model, client)), strict=True):
        check(ours, theirs)
    assert [len(found["scores"]) > 0 for found in client.detect(small, score_threshold=0.2)] == [True, True]
    with pytest.raises(ValueError, match="a canvas of 192×192 pixels: the file has one of 96×96 for all images"):
        TestTimeAugmentation(client, scales=(2,)).detect(images[0])
    text = openvino.Core().read_model(path).get_rt_info("model.json").value
    assert json.loads(text)["batch"] == 2 and json.loads(text)["score_threshold"] == 0.2
