"""The command line with a model that finds no objects."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import FCN
from keras_maskrcnn.cli import main

NAMES = ["circle", "square", "triangle"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("cli") / "fcn.keras"
    backbone = {"name": "resnet10", "width": 8, "norm": "group"}
    FCN(3, backbone, class_names=NAMES, image_size=(64, 64), stage={"width": 8, "norm": "group"}).save(path)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype("uint8")).save(path)
    return path


def test_evaluate(model, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    dataset = ["--dataset", "shapes", "--count", "2", "--image-size", "64"]
    assert main(["evaluate", "--model", str(model), *dataset, "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "mean IoU" in printed and "triangle" in printed
    assert 0 <= json.loads(figures.read_text())["mean_IoU"] <= 1
    assert main(["evaluate", "--model", str(model), *dataset, "--report"]) == 2
    assert "--report is about objects, and" in capsys.readouterr().err


def test_predict(model, image, tmp_path, capsys):
    command = ["predict", "--model", str(model), str(image), "--output", str(tmp_path)]
    assert main([*command, "--ids"]) == 0
    assert "region" in capsys.readouterr().out and (tmp_path / "a.png").is_file()
    ids = np.asarray(Image.open(tmp_path / "ids" / "a.png"))
    assert ids.shape == (50, 70) and ids.max() <= 3
    for option in (["--json", str(tmp_path / "found.json")], ["--score", "0.4"], ["--cutouts"]):
        assert main([*command, *option]) == 2
        assert "is about objects, and" in capsys.readouterr().err
    assert main([*command, "--tta", "flip"]) == 2
    assert "test-time augmentation fuses objects" in capsys.readouterr().err


def test_info_and_export(model, capsys, tmp_path):
    assert main(["info", "--model", str(model)]) == 0
    printed = capsys.readouterr().out
    assert "FCN" in printed and "thresholds" not in printed
    command = ["export", "--model", str(model), "--output", str(tmp_path / "saved"), "--score-threshold", "0.5"]
    assert main(command) == 2
    assert "score_threshold: fcn finds no objects, and has no thresholds" in capsys.readouterr().err
