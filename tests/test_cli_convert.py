"""`convert`: a file with torchvision's names to a model file, and what it refuses."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest

from keras_maskrcnn import cli, weights
from keras_maskrcnn.cli import main

pytestmark = pytest.mark.usefixtures("narrow_presets")

PRESET = "mask_rcnn_resnet50_fpn"


def helper(name, folder="weights"):
    """A module beside the tests in a folder; tests are no package."""
    path = pathlib.Path(__file__).parent / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names, torch_writer = helper("names"), helper("torch_writer")


def write(path, arrays):
    torch_writer.write_zip(path, torch_writer.ordered({k: torch_writer.tensor(v) for k, v in arrays.items()}))
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Random arrays under the names of maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth, and the file that holds them."""
    arrays = names.drawn(names.narrowed(names.older_style(names.torchvision_shapes("maskrcnn_resnet50_fpn"))))
    return arrays, write(tmp_path_factory.mktemp("published") / "coco.pth", arrays)


def convert(*arguments):
    return main(["convert", "--preset", PRESET, *map(str, arguments)])


def test_a_published_file_becomes_a_model_with_names(published, tmp_path, capsys):
    arrays, path = published
    output = tmp_path / "models" / "coco.keras"
    assert convert(path, "--output", output) == 0
    printed = capsys.readouterr().out
    assert f"variables of {PRESET} loaded, 90 classes, COCO's names" in printed
    assert "not loaded" not in printed and "left out" not in printed
    assert f"predict --model {output}" in printed
    model = keras.saving.load_model(output)
    assert model.num_classes == 90 and model.class_names[:12] + model.class_names[-1:] == [
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
        "fire hydrant", "unused 12", "toothbrush",
    ]  # fmt: skip
    scores = arrays["roi_heads.box_predictor.cls_score.weight"]
    np.testing.assert_array_equal(model.box_head.classes.kernel, scores.T)
    np.testing.assert_array_equal(
        model.backbone.get_layer("stem_conv").kernel, arrays["backbone.body.conv1.weight"].transpose(2, 3, 1, 0)
    )


def test_a_file_of_yolact_becomes_a_model_of_its_class(tmp_path, capsys):
    shapes = helper("generated", "parity").shapes("yolact_resnet50")
    outputs = (243, 96, 80, 32)  # logits and coefficients of the anchors of a location, logits, prototypes
    path = write(tmp_path / "yolact.pth", names.drawn(names.narrowed(shapes, outputs=outputs)))
    output = tmp_path / "yolact.weights.h5"
    assert main(["convert", "--preset", "yolact_resnet50", str(path), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "301 variables of yolact_resnet50 loaded, 80 classes, COCO's names" in printed
    assert "not loaded" not in printed and "left out" not in printed
    assert f"YOLACT.from_preset('yolact_resnet50', num_classes=80, weights='{output}')" in printed


def test_the_sources_are_those_of_the_library():
    assert cli.convert.SOURCES == weights.SOURCES


def test_other_classes_start_anew_and_take_their_own_names(published, tmp_path, capsys):
    _, path = published
    (tmp_path / "names.txt").write_text("apple\n\n pear \n")
    output = tmp_path / "fruit.weights.h5"
    assert convert(path, "--num-classes", 2, "--class-names", tmp_path / "names.txt", "--output", output) == 0
    printed = capsys.readouterr().out
    assert "2 classes, names of" in printed
    assert "not loaded, to be trained: box_head.classes, box_head.deltas, mask_head.logits" in printed
    assert f"train it: MaskRCNN.from_preset('{PRESET}', num_classes=2, weights='{output}')" in printed
    assert output.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["some.pth", "--output", "coco.h5"], "coco.h5: give a file that ends in .keras or .weights.h5"),
        (["some.pth", "--output", "coco.keras"], "some.pth: no such file"),
        (["some.pth", "--output", "coco.keras", "--preset", "resnet"], "there is no preset 'resnet'"),
        (["stem.pth", "--output", "coco.keras"], "stem.pth: has no class scores, so give --num-classes"),
        (["stem.pth", "--output", "coco.keras", "--source", "matterport"], "stem.pth: is a torch zip file"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "stem.pth", {"conv1.weight": np.zeros((16, 3, 7, 7), "float32")})
    assert convert(*arguments) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["stem.pth"]
