"""The verbs of the command line, with a tiny untrained model."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import cli, data
from keras_maskrcnn.cli import export as cli_export
from keras_maskrcnn.cli import main
from keras_maskrcnn.cli.predict import unique_names
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.inference.predictor import Predictor
from keras_maskrcnn.models import presets
from keras_maskrcnn.models.base import InstanceModel

NAMES = ["circle", "square", "triangle"]


@pytest.fixture(autouse=True, scope="module")
def read_once(model_file):
    """`model_file` is read, and its network traced, once for all tests of this file."""
    load = keras.saving.load_model
    read = functools.cache(load)

    def load_once(path, **options):
        return (read if path == model_file else load)(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.saving, "load_model", load_once)
        yield


@pytest.fixture
def photos(tmp_path):
    """A folder with two images, a truncated one and a text file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("000000000042.png", (50, 70)), ("b.jpg", (90, 60))):
        Image.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes((folder / "b.jpg").read_bytes()[:200])
    (folder / "notes.txt").write_text("not an image")
    return folder


def predict(model_file, *arguments):
    return main(["predict", "--model", str(model_file), "--score-threshold", "0", *map(str, arguments)])


def test_predict_writes_overlays_and_results(model_file, photos, tmp_path, capsys):
    output, found = tmp_path / "out", tmp_path / "json" / "found.json"
    inputs = [photos / "000000000042.png", photos / "b.jpg"]
    assert predict(model_file, *inputs, "--output", output, "--json", found) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "[1/2]" in printed.out and "[2/2]" in printed.out and "2 images done, 0 failed" in printed.out
    assert sorted(path.name for path in output.iterdir()) == ["000000000042.png", "b.png"]
    results = json.loads(found.read_text())
    assert {result["image_id"] for result in results} == {"000000000042", "b"}
    assert {result["category_name"] for result in results} <= set(NAMES)
    sizes = {result["image_id"]: result["segmentation"]["size"] for result in results}
    assert sizes == {"000000000042": [50, 70], "b": [90, 60]}


def test_a_broken_file_is_named_and_the_others_are_processed(model_file, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(model_file, photos, tmp_path / "missing.png", "--output", output) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 2
    assert any("missing.png" in line and "no such file" in line for line in lines)
    assert any("broken.jpg" in line for line in lines)
    assert sorted(path.name for path in output.iterdir()) == ["000000000042.png", "b.png"]
    assert "2 images done, 2 failed" in printed.out


@pytest.mark.parametrize("failing_size", [(50, 70), (90, 60)])
def test_an_image_whose_detection_fails_is_named_and_the_others_are_processed(
    failing_size, model_file, photos, tmp_path, capsys, monkeypatch
):
    decode = Predictor._decode

    def failing(self, batch, i, image, limits):
        if image.shape[:2] == failing_size:
            raise MemoryError("no room for its masks")
        return decode(self, batch, i, image, limits)

    monkeypatch.setattr(Predictor, "_decode", failing)
    files = {(50, 70): "000000000042.png", (90, 60): "b.jpg"}
    inputs = [photos / name for name in files.values()]
    assert predict(model_file, *inputs, "--output", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert files[failing_size] in printed.err and "no room for its masks" in printed.err
    assert "1 image done, 1 failed" in printed.out


def test_a_missing_path_and_a_folder_without_images_are_two_messages(model_file, photos, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("not an image")
    assert predict(model_file, empty, tmp_path / "missing", "--output", tmp_path / "out") == 2
    suffixes = ".bmp, .gif, .jpeg, .jpg, .png, .ppm, .tif, .tiff, .webp"
    assert capsys.readouterr().err.splitlines() == [
        f"error: {empty}: no image in it ({suffixes} are read)",
        f"error: {tmp_path / 'missing'}: no such file or folder",
    ]


def test_equal_names_do_not_overwrite_each_other():
    files = [pathlib.Path(name) for name in ("a/x.png", "b/x.jpg", "x_2.png", "y.png", "c/x.png")]
    assert unique_names(files) == ["x", "x_2", "x_2_2", "y", "x_3"]


def test_predict_on_all_kinds_of_photos(model_file, kmr_data, tmp_path, capsys):
    folder = kmr_data / "photos"
    count = sum(path.suffix in (".png", ".jpg") for path in folder.iterdir())
    assert predict(model_file, folder, "--output", tmp_path) == 0
    assert f"{count} images done, 0 failed" in capsys.readouterr().out
    turned = Image.open(tmp_path / "chelsea_exif_orientation6.png").size
    straight = Image.open(tmp_path / "chelsea.png").size
    assert (turned[0] > turned[1]) == (straight[0] > straight[1])  # the orientation in the EXIF data is applied


def test_evaluate_prints_a_table_and_writes_json(model_file, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    arguments = ["--dataset", "shapes", "--count", "4", "--image-size", "64", "--report", "--json", str(figures)]
    assert main(["evaluate", "--model", str(model_file), "--boundary", *arguments]) == 0
    printed = capsys.readouterr()
    assert "AP50" in printed.out and "triangle" in printed.out and "recall" in printed.out
    assert "Errors by type (TIDE)" in printed.out and "boundary" in printed.out
    scores = json.loads(figures.read_text())
    assert 0 <= scores["segm_AP"] <= 1 and scores["segm_APl"] is None and scores["boundary_AP"] <= scores["segm_AP"]
    assert np.shape(scores["report"]["confusion"]) == (4, 4)
    assert {"best_f1", "tide", "calibration", "sizes", "per_image", "dsb_score"} <= set(scores)


def test_evaluate_on_real_data_needs_matching_classes(model_file, kmr_data, capsys):
    folder = str(kmr_data / "PennFudanPed")
    assert main(["evaluate", "--model", str(model_file), "--dataset", "penn_fudan", "--data", folder]) == 2
    reason = "which the model does not have; its classes are circle, square, triangle"
    assert capsys.readouterr().err == f"error: the data set has the classes person, {reason}\n"


def test_export_then_predict_with_the_saved_model(model_file, photos, tmp_path, capsys):
    folder = tmp_path / "exported"
    assert main(["export", "--model", str(model_file), "--output", str(folder)]) == 0
    printed = capsys.readouterr()
    assert str(folder) in printed.out and f"saved_model: writing {folder}, up to a few minutes\n" in printed.err
    results = []
    for source in (model_file, folder):
        found = tmp_path / f"{source.name}.json"
        assert predict(source, photos / "b.jpg", "--output", tmp_path / "out", "--json", found) == 0
        results.append(json.loads(found.read_text()))
    assert len(results[0]) == len(results[1]) > 0
    for one, other in zip(*results, strict=True):
        assert one["category_name"] == other["category_name"]
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=0.5)
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)


def test_export_with_options(photos, tmp_path, capsys):
    path, folder = tmp_path / "one.keras", tmp_path / "exported"
    OneBox(3, class_names=NAMES, image_size=(64, 64), dtype="float32").save(path)
    options = ["--score-threshold", "0.4", "--nms-iou", "0.3", "--max-detections", "7", "--precision", "mixed_bfloat16"]
    assert main(["export", "--model", str(path), "--output", str(folder), *options]) == 0
    content = json.loads((folder / "assets" / "model.json").read_text())
    changed = {"score_threshold": 0.4, "nms_iou": 0.3, "max_detections": 7}
    assert content["detection"].items() >= changed.items() and content["precision"] == "mixed_bfloat16"
    capsys.readouterr()
    shown = described(folder, capsys)
    assert shown["thresholds"] == "score above 0.4, NMS IoU 0.3, at most 7 objects per image"
    assert shown["precision"] == "mixed_bfloat16" and "parameters" not in shown


@pytest.mark.parametrize(
    ("options", "weights", "said"),
    [
        ((), None, ""),
        (("--precision", "float16"), "float16", ""),
        (("--int8",), "int8", ""),
        (("--int8", "pictures"), "int8", "--int8 pictures: the folder is not read, "),
    ],
)
def test_export_passes_the_weights_of_litert_on(options, weights, said, tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(OneBox, "export", lambda self, path, *words: given.append(words) or path.write_bytes(b"1"))
    path, output = tmp_path / "one.keras", tmp_path / "one.tflite"
    OneBox(3, class_names=NAMES, image_size=(64, 64), dtype="float32").save(path)
    assert main(["export", "--model", str(path), "--output", str(output), *options]) == 0
    assert given == [("litert", None, None, weights, None)]
    printed = capsys.readouterr().out
    assert said in printed and printed.count("\n") == 2 + bool(said)


def test_export_reads_the_photos_of_int8_and_names_those_that_it_cannot_read(tmp_path, monkeypatch, capsys):
    given = []

    def export(self, path, *words):
        given.append([photo.shape for photo in words[-1]])
        path.write_bytes(b"1")
        path.with_suffix(".bin").write_bytes(b"2")

    monkeypatch.setattr(OneBox, "export", export)
    monkeypatch.setattr(cli_export, "MOST", 3)
    model, photos, output = tmp_path / "one.keras", tmp_path / "photos", tmp_path / "one.xml"
    OneBox(3, class_names=NAMES, image_size=(64, 64), dtype="float32").save(model)
    photos.mkdir()
    arguments = ["export", "--model", str(model), "--output", str(output), "--int8", str(photos)]
    for name in ("a", "b", "c", "d", "e", "f"):
        (photos / f"{name}.png").write_bytes(b"no image")
    assert main(arguments) == 2 and not given
    assert capsys.readouterr().err == f"error: --int8 {photos}: none of its images can be read\n"
    for width, name in enumerate(("a", "b", "c", "e", "f"), start=1):
        Image.new("RGB", (width, 5)).save(photos / f"{name}.png")
    assert main(arguments) == 0
    assert given == [[(5, 1, 3), (5, 3, 3), (5, 4, 3)]]  # every second one: a, c, e
    (photos / "c.png").write_bytes(b"no image")
    assert main(arguments) == 0
    assert given[1:] == [[(5, 1, 3), (5, 4, 3)]]
    first = capsys.readouterr().out.splitlines()[-3]
    assert first.startswith(f"skipped: {photos / 'c.png'}: cannot be read as an image")


def test_export_with_a_threshold_outside_its_range_is_one_line(model_file, tmp_path, capsys):
    arguments = ["--model", str(model_file), "--output", str(tmp_path / "exported"), "--nms-iou", "2"]
    assert main(["export", *arguments]) == 2
    assert capsys.readouterr().err == "error: nms_iou=2.0 must be a number from 0 to 1\n"


def described(path, capsys):
    """The rows of `info --model` after the machine's, as a dict."""
    assert main(["info", "--model", str(path)]) == 0
    rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    return {label.strip(): value.strip() for label, value in (row.strip().split("  ", 1) for row in rows)}


def test_info_describes_a_model(model_file, tmp_path, capsys):
    path = tmp_path / "tiny.keras"
    shutil.copy(model_file, path)
    shown = described(path, capsys)
    assert shown["model"] == str(path) and shown["class"] == "MaskRCNN"
    assert shown["classes"] == "3: circle, square, triangle"
    assert shown["images"] == "on a canvas of 64 x 64 pixels (height x width)"
    assert shown["thresholds"] == "score above 0.0, NMS IoU 0.5, at most 8 objects per image"
    assert shown["precision"] == "float32" and shown["backbone"] == "simple_cnn" and "trained by" not in shown
    summary = {
        "saved_model": None,
        "command": "python train/shapes.py",
        "keras_file": "runs/shapes/tiny.keras",
        "train_images": 23200,
        "steps": 2900,
        "batch_size": 8,
        "segm_AP": 0.849,
        "bbox_AP": 0.846,
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    shown = described(path, capsys)
    assert shown["trained by"] == "python train/shapes.py"
    assert shown["on"] == "23,200 images, 2,900 steps of 8" and shown["scores"] == "bbox_AP 0.846, segm_AP 0.849"
    path.rename(tmp_path / "other.keras")  # of another run
    assert "trained by" not in described(tmp_path / "other.keras", capsys)


def test_info_describes_the_resize_rule(tmp_path, capsys):
    path = tmp_path / "one.keras"
    OneBox(3, resize={"shorter": 600, "longer": 900, "multiple": 64}).save(path)
    shown = described(path, capsys)
    assert shown["images"] == "shorter side 600 pixels, longer at most 900, canvas in multiples of 64"
    assert shown["classes"] == "3, without names" and shown["class"] == "OneBox" and "backbone" not in shown
    assert shown["thresholds"].startswith("score above 0.5 (0.05 in an export), NMS IoU 0.5, at most")


def test_info_counts_the_parameters_of_the_report(capsys):
    assert main(["info", "--preset", "mask_rcnn_resnet50_fpn", "--num-classes", "22"]) == 0
    printed = capsys.readouterr().out
    assert "44,035,417" in printed and "43,813,017" in printed
    assert keras.__version__ in printed and keras.backend.backend() in printed


def test_info_of_a_preset_has_its_conventions_and_published_weights(capsys):
    assert main(["info", "--preset", "mask_rcnn_resnet50_fpn"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    shown = {line[0]: line[1] for line in lines if len(line) == 2}
    content = presets.read("mask_rcnn_resnet50_fpn")
    assert shown["classes"] == str(content["weights"]["classes"])
    assert shown["url"] == content["weights"]["url"] and shown["licence"] == content["weights"]["licence"]
    assert shown["metrics"].startswith("bbox_AP 0.379, segm_AP 0.346")
    assert shown["anchors"] == content["conventions"]["anchors"]


def test_info_of_a_file_and_of_nothing(model_file, capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "parameters" not in printed and "mask_rcnn_resnet50_fpn, " in printed
    assert main(["info", "--model", str(model_file)]) == 0
    model = keras.saving.load_model(model_file)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    printed = capsys.readouterr().out
    assert str(model_file) in printed and f"{trainable:,}" in printed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["predict", "--model", "none.keras", "x.png", "--output", "out"], "none.keras: no such model"),
        (["predict", "--model", ".", "x.png", "--output", "out"], "no saved_model.pb"),
        (["evaluate", "--model", "none.keras", "--dataset", "coco"], "--dataset coco needs --data"),
        (
            ["evaluate", "--model", "none.keras", "--dataset", "penn_fudan", "--data", "nowhere"],
            "nowhere: no such folder",
        ),
        (["evaluate", "--model", "m", "--dataset", "nuclei", "--data", "nowhere"], "nowhere: no such folder"),
        (["export", "--model", "none.keras", "--output", "out"], "none.keras: no such model"),
        (["predict", "--model", "m", "x", "--output", "file"], "--output file: is a file, not a folder"),
        (["predict", "--model", "m", "x", "--output", "o", "--json", "."], "--json .: is a folder, not a file"),
        (["evaluate", "--model", "m", "--dataset", "shapes", "--json", "."], "--json .: is a folder, not a file"),
        (["evaluate", "--model", "m", "--dataset", "shapes", "--html", "."], "--html .: is a folder, not a file"),
        (["export", "--model", "m", "--output", "file"], "--output file: is a file, not a folder"),
        (["export", "--model", ".", "--output", "out"], "is not a SavedModel (there is no saved_model.pb)"),
        (["export", "--model", "saved", "--output", "out"], "saved: is exported already; export takes a .keras"),
        (
            ["export", "--model", "m", "--output", "m", "--format", "coreml"],
            "format='coreml' is not one of saved_model, ",
        ),
        (["export", "--model", "m", "--output", "m.pb"], "m.pb: .pb is not written; a SavedModel is a folder"),
        (["export", "--model", "m", "--output", "m.onnx", "--int8", "photos"], "--int8: not for onnx"),
        (
            ["export", "--model", "m", "--output", "m.xml", "--int8"],
            "--int8: openvino needs photos for the ranges; give a folder of them, --int8 FOLDER",
        ),
        (["export", "--model", "m", "--output", "m.xml", "--int8", "photos"], "--int8 photos: no such folder"),
        (["export", "--model", "m", "--output", "m.xml", "--int8", "saved"], "--int8 saved: no image in it (.bmp, "),
        (
            ["export", "--model", "m", "--output", "m.tflite", "--int8", "--precision", "float16"],
            "--precision float16 and --int8: give one of them",
        ),
        (["info", "--preset", "unheard_of", "--num-classes", "2"], "unheard_of"),
        (["info", "--preset", "mask_rcnn_resnet50_fpn", "--num-classes", "0"], "num_classes"),
    ],
)
def test_errors_are_one_line_and_exit_code_two(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_a_threshold_outside_its_range_is_one_line(model_file, photos, tmp_path, capsys):
    assert predict(model_file, photos, "--output", tmp_path / "out", "--score-threshold", "1.5") == 2
    assert capsys.readouterr().err == "error: score_threshold=1.5 must be a number from 0 to 1\n"


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_a_file_that_is_not_a_model(content, tmp_path, capsys):
    path = tmp_path / "bad.keras"
    path.write_bytes(content)
    assert predict(path, "x.png", "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "bad.keras" in error and error.count("\n") == 1


def test_a_foreign_keras_model_is_rejected(tmp_path, capsys):
    path = tmp_path / "foreign.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    assert predict(path, "x.png", "--output", tmp_path / "out") == 2
    assert "foreign.keras: holds a Sequential" in capsys.readouterr().err


@keras.saving.register_keras_serializable(package="test_cli")
class OneBox(InstanceModel):
    """A one-stage model without masks: one detection of class 1, the whole image."""

    OUTPUTS = OUTPUTS

    def __init__(self, num_classes, **common):
        super().__init__(num_classes, **common)
        self.score = keras.layers.Dense(1, kernel_initializer="zeros")
        self.score.build((None, 3))
        self.built = True

    def canvas_stride(self):
        return 1

    def call(self, inputs, training=False):
        scores = keras.ops.sigmoid(self.score(keras.ops.mean(inputs["images"], axis=(1, 2))))
        corner = keras.ops.flip(inputs["sizes"], axis=1)
        boxes = keras.ops.concatenate([keras.ops.zeros_like(corner), corner], axis=1)[:, None]
        labels = keras.ops.ones_like(scores, dtype="int32")
        return {"boxes": boxes, "scores": scores, "labels": labels, "valid": labels > 0}


def test_a_model_of_another_class_is_predicted_evaluated_and_counted(photos, tmp_path, capsys):
    path, found, figures = (tmp_path / name for name in ("one.keras", "found.json", "figures.json"))
    OneBox(3, class_names=NAMES, image_size=(64, 64)).save(path)
    image = photos / "b.jpg"
    assert main(["info", "--model", str(path)]) == 0
    assert "parameters" in capsys.readouterr().out
    assert predict(path, image, "--output", tmp_path / "out", "--json", found) == 0
    [result] = json.loads(found.read_text())
    assert result["category_name"] == "circle" and result["score"] == 0.5 and "segmentation" not in result
    np.testing.assert_allclose(result["bbox"], [0, 0, 60, 90], rtol=1e-5)
    assert main(["export", "--model", str(path), "--output", str(tmp_path / "exported")]) == 0
    for source in (path, tmp_path / "exported"):
        dataset = ["--dataset", "shapes", "--count", "2", "--image-size", "64", "--report", "--json", str(figures)]
        page = tmp_path / f"{source.name}.html"
        assert main(["evaluate", "--model", str(source), *dataset, "--html", str(page)]) == 0
        printed = capsys.readouterr().out
        assert "at IoU 0.5 of boxes" in printed and f"report: {page}" in printed
        assert "segm_AP" not in json.loads(figures.read_text()) and "missed: " in page.read_text()
    assert main(["evaluate", "--model", str(path), *dataset, "--boundary"]) == 2
    assert "kind must be one of ('bbox',)" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(path), *dataset, "--score-threshold", "1.5"]) == 2
    assert capsys.readouterr().err == "error: score_threshold=1.5 must be a number from 0 to 1\n"


def test_predict_takes_the_options_of_the_model(photos, tmp_path):
    image, numbers = photos / "b.jpg", []
    for detection in (None, {"score_threshold": 0.3}):
        path, found = tmp_path / "one.keras", tmp_path / "found.json"
        OneBox(3, image_size=(64, 64), detection=detection).save(path)
        arguments = ["predict", "--model", path, image, "--output", tmp_path / "out", "--json", found]
        assert main([str(argument) for argument in arguments]) == 0
        numbers.append(len(json.loads(found.read_text())))
    assert numbers == [0, 1]  # the score is 0.5, the threshold 0.5 unless the model has its own


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(data.DataError):
        main(["export", "--model", str(tmp_path / "none.keras"), "--output", "out", "--debug"])


@pytest.mark.parametrize("verb", ["predict", "evaluate", "export", "convert", "info"])
def test_help_of_each_verb_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  python -m keras_maskrcnn {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["predict", "evaluate", "info"])
def test_help_says_that_a_saved_model_is_a_program(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "SavedModel is a program" in " ".join(capsys.readouterr().out.split())


def test_help_of_export_names_no_model_that_it_refuses(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = capsys.readouterr().out.split("options:")[1]
    model = shown[shown.index("--model MODEL") : shown.index("--output PATH")]
    assert ".keras file" in model and not any(name in model for name in (".onnx", ".xml", ".tflite", "SavedModel"))


def test_as_a_module_in_a_new_process(tmp_path):
    command = [sys.executable, "-m", "keras_maskrcnn", "predict", "--model", "none.keras", "x.png", "--output", "out"]
    root = str(pathlib.Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.rstrip().splitlines()[-1].startswith("error: none.keras: no such model: give a .keras file")
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_maskrcnn.cli.info._machine", lambda: interrupted(None))
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_an_error_of_the_system_without_a_file_names_the_output(monkeypatch, capsys):
    def run(args):
        """Fails."""
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli.compare, "run", run)
    assert main(["compare", "runs/one", "--output", "runs/both"]) == 2
    assert capsys.readouterr().err == "error: runs/both: [Errno 28] No space left on device\n"
