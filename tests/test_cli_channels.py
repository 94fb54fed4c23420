"""`predict`, `evaluate` and `info` read images with the channels and the dtype of the model."""

import json

import keras
import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.cli import main


@pytest.fixture(scope="module")
def model_file(one_level, tmp_path_factory):
    """A model of two channels and 16 bits."""
    keras.utils.set_random_seed(0)
    model = MaskRCNN(
        1,
        **one_level,
        class_names=["cell"],
        channels=2,
        image_dtype="uint16",
        image_size=(64, 64),
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        proposals={"pre_nms": 32, "post_nms": 16},
        detection={"max_detections": 8, "score_threshold": 0.0},
    )
    model.compile(run_eagerly=True)
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    model.save(path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """A COCO data set of two TIFF files of two pages; `other.png` has three channels."""
    rng, content = np.random.default_rng(0), {"images": [], "annotations": []}
    for number in (1, 2):
        pages = rng.integers(0, 4000, (2, 50, 60), np.uint16)
        tifffile.imwrite(tmp_path / f"{number}.tif", pages, photometric="minisblack")
        content["images"].append({"id": number, "file_name": f"{number}.tif", "height": 50, "width": 60})
        square = [5, 5, 25, 5, 25, 25, 5, 25]
        annotation = {"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400}
        content["annotations"].append({**annotation, "iscrowd": 0, "segmentation": [square]})
    (tmp_path / "cells.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cell"}]}))
    Image.new("RGB", (60, 50)).save(tmp_path / "other.png")
    return tmp_path


def test_predict(model_file, folder, tmp_path, capsys):
    output = tmp_path / "found"
    np.save(folder / "array.npy", np.zeros((40, 40, 2), np.uint16))
    inputs = [str(folder / name) for name in ("1.tif", "other.png", "2.tif", "array.npy")]
    found = tmp_path / "found.json"
    assert main(["predict", "--model", model_file, *inputs, "--output", str(output), "--json", str(found)]) == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"error: {folder / 'other.png'}: cannot be read as an image (the image has 3 channels, not 2)"
    ]
    assert "3 images done, 1 failed" in printed.out
    assert {result["image_id"] for result in json.loads(found.read_text())} >= {"1", "2"}
    assert Image.open(output / "1.png").mode == "RGB"


def test_evaluate(model_file, folder, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    arguments = ["--data", str(folder), "--annotations", str(folder / "cells.json"), "--json", str(figures)]
    assert main(["evaluate", "--model", model_file, *arguments]) == 0
    assert 0 <= json.loads(figures.read_text())["segm_AP"] <= 1


def test_inspect_and_convert_data_with_the_images_elsewhere(folder, tmp_path, capsys):
    annotations, page = tmp_path / "elsewhere" / "cells.json", tmp_path / "page.html"
    annotations.parent.mkdir()
    (folder / "cells.json").rename(annotations)
    bands = ["--channels", "2", "--image-dtype", "uint16"]
    assert main(["inspect", str(annotations), "--images", str(folder), *bands, "--html", str(page)]) in (0, 1)
    assert "all: 2 images, 2 objects" in capsys.readouterr().out and page.is_file()
    others = ["--channels", "4", "--image-dtype", "uint16"]
    assert main(["inspect", str(annotations), "--images", str(folder), *others]) == 2
    assert "2 unreadable" in capsys.readouterr().out
    annotations.rename(folder / "cells.json")
    assert main(["convert-data", str(folder / "cells.json"), str(tmp_path / "out.json"), *bands]) == 0
    assert len(json.loads((tmp_path / "out.json").read_text())["annotations"]) == 2


def test_info(model_file, capsys):
    assert main(["info", "--model", model_file]) == 0
    assert "uint16 [H, W, 2]\n" in capsys.readouterr().out
