"""LiteRT files give the detections of `detect`: read by this library, and run by the interpreter alone."""

import concurrent.futures
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
from agreement import check, check_bare

from keras_maskrcnn import MaskRCNN, cli
from keras_maskrcnn.cli.common import load
from keras_maskrcnn.data import DataError
from keras_maskrcnn.inference.litert_weights import with_narrow_weights

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="the extra litert is not installed")

THRESHOLD = 0.2


def bare(content):
    """A model as a function of images, with the interpreter and nothing else."""
    interpreter = litert.Interpreter(model_content=content, num_threads=2)
    names = set(interpreter.get_signature_list()["serving_default"]["outputs"])
    assert names == {f"detection_{name}" for name in ("boxes", "classes", "scores", "masks")} | {"num_detections"}
    return interpreter.get_signature_runner("serving_default")


def check_alone(run, image, expected):
    check_bare(expected, {name: values[0] for name, values in run(images=image[None]).items()}, image)


@pytest.fixture(scope="module")
def case(make, tmp_path_factory):
    """A model, and the file that it was exported to."""
    detection = {"score_threshold": THRESHOLD, "max_detections": 10, "paste": "whole_pixels"}
    wide = {"box_stage": {"width": 64}}  # most of the file are weights
    model = make(**wide, image_size=(64, 96), stretch=(1, 99.8), detection=detection)
    model.set_weights([values.astype("float16").astype("float32") for values in model.get_weights()])
    path = tmp_path_factory.mktemp("litert") / "m.tflite"
    model.export(path)
    return model, path


def test_the_file_gives_the_results_of_the_model(case, images):
    model, path = case
    client = load(path)
    assert client.class_names == ["a", "b", "c"] and client.image_type == model.image_type
    for limits in ({"score_threshold": THRESHOLD}, {"score_threshold": 0.0, "nms_iou": 0.2, "max_detections": 3}):
        for ours, theirs in zip(*(m.detect(images, **limits) for m in (model, client)), strict=True):
            assert len(ours["scores"]) > 0
            check(ours, theirs)
    assert len(client.detect(images[0], score_threshold=0.99)["scores"]) == 0
    with pytest.raises(ValueError, match="max_detections=11: the file has 10 per image; export it again with --max-d"):
        client.detect(images[0], max_detections=11)


def test_the_interpreter_alone_takes_images_of_any_size(case, images):
    model, path = case
    run = bare(path.read_bytes())
    for image in images:
        check_alone(run, image, model.detect(image, score_threshold=THRESHOLD))


def test_the_interpreter_alone_finds_nothing_in_a_dark_image(brightness, tmp_path):
    path = tmp_path / "m.tflite"
    brightness(1, image_size=(8, 8), detection={"score_threshold": 0.3, "max_detections": 1}).export(path)
    run = litert.Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    counts = [run(images=np.full((1, 4, 4, 3), level, "uint8"))["num_detections"].tolist() for level in (204, 51)]
    assert counts == [[1], [0]]


def test_a_client_without_signatures_runs_the_whole_graph(case, images):
    interpreter = litert.Interpreter(model_path=str(case[1]))
    given = interpreter.get_input_details()[0]
    assert given["dtype"] == np.uint8
    interpreter.resize_tensor_input(given["index"], (1, *images[1].shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images[1][None])
    interpreter.invoke()
    shapes = {tuple(details["shape"]) for details in interpreter.get_output_details()}
    assert shapes == {(1, 10, 4), (1, 10), (1, 10, 28, 28), (1,)}


def test_class_names_and_description_are_a_zip_archive(case):
    with zipfile.ZipFile(case[1]) as archive:
        assert archive.read("labels.txt").decode().splitlines() == ["a", "b", "c"]
        description = json.loads(archive.read("model.json"))
    assert description["score_threshold"] == THRESHOLD and description["batch"] == 1


def test_threads_share_a_reader(case, images):
    client = load(case[1])
    expected = [client.detect(image) for image in images]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for ours, theirs in zip(expected * 2, threads.map(client.detect, images * 2), strict=True):
            np.testing.assert_array_equal(ours["boxes"], theirs["boxes"])


def test_weights_of_half_the_size(case, images):
    """The weights of the model are exact in float16; the other constants stay as they are."""
    model, path = case
    content = path.read_bytes()
    half = with_narrow_weights(content, "float16")
    assert len(half) < 0.85 * len(content)
    run = bare(half)
    for image in images[:2]:
        check_alone(run, image, model.detect(image, score_threshold=THRESHOLD))


def test_weights_in_eight_bits(case, images):
    content = case[1].read_bytes()
    small = with_narrow_weights(content, "int8")
    assert len(small) < len(with_narrow_weights(content, "float16"))
    expected, found = (bare(part)(images=images[0][None]) for part in (content, small))
    best, other = (scores["detection_scores"][0] for scores in (expected, found))
    np.testing.assert_allclose(best, other, atol=0.05)
    assert not np.array_equal(best, other)


def test_other_files_are_one_line(case, tmp_path, capsys):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(DataError, match=r"broken\.tflite: was not written by `export`"):
        load(path)
    shutil.copy(case[1], path)
    path.write_bytes(path.read_bytes()[4000:])  # with the archive, without the start of the model
    assert cli.main(["predict", "--model", str(path), "x.png", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "broken.tflite: is not a LiteRT model" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        (b"{", r"its description \(model.json\) is damaged"),
        (b"\xff", r"its description \(model.json\) is damaged"),
        (b"{}", r"its description \(model.json\) is damaged"),
        (bytes(2**23), "its model.json has more than 4194304 bytes"),
    ],
    ids=["json", "text", "entries", "large"],
)
def test_a_damaged_description_is_one_line(description, reason, tmp_path):
    path = tmp_path / "m.tflite"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", description)
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match=rf"m\.tflite: {reason}"):
        load(path)


def test_a_missing_package_is_one_line(monkeypatch, case):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(DataError, match=r'needs the package ai_edge_litert.*pip install "keras3-maskrcnn\[litert\]"'):
        load(case[1])


def test_impossible_options_are_refused(make, tmp_path):
    model = make(resize={"scale": 1.0})
    with pytest.raises(ValueError, match=r"a LiteRT model has one canvas; give .* --image-size H W"):
        model.export(tmp_path / "m.tflite")
    with pytest.raises(ValueError, match="a LiteRT model takes one image, not a batch of 2"):
        model.export(tmp_path / "m.tflite", image_size=(64, 64), batch=2)
    for suffix, weights in (("onnx", "float16"), ("xml", "int8"), ("tflite", "int4")):
        with pytest.raises(ValueError, match=f"weights='{weights}': only litert has others than float32, float16 and"):
            model.export(tmp_path / f"m.{suffix}", weights=weights)


@pytest.mark.slow
def test_the_nuclei_model_has_less_than_ten_megabytes(tmp_path):
    """256×256 pixels with bright discs; the numbers of the published weights are exact in float16."""
    path = tmp_path / "nuclei.tflite"
    options = ["--image-size", "256", "256", "--precision", "float16"]
    assert cli.main(["export", "--model", "nuclei", "--output", str(path), *options]) == 0
    assert path.stat().st_size < 10e6
    rng = np.random.default_rng(0)
    image, grid = rng.integers(8, 20, (256, 256)), np.mgrid[:256, :256]
    for row, column, radius in rng.integers((20, 20, 7), (236, 236, 14), (25, 3)):
        image[(grid[0] - row) ** 2 + (grid[1] - column) ** 2 < radius**2] += 90
    image = np.repeat(image.clip(0, 255).astype("uint8")[..., None], 3, axis=2)
    model = MaskRCNN.from_preset("nuclei")
    expected = model.detect(image)
    assert len(expected["scores"]) > 10
    check(expected, load(path).detect(image))
    found = bare(path.read_bytes())(images=image[None])
    good = found["detection_scores"][0] > 0.5
    np.testing.assert_allclose(found["detection_boxes"][0][good][:, [1, 0, 3, 2]] * 256, expected["boxes"], atol=0.05)
