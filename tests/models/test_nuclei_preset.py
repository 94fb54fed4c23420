"""The model that ships: it loads offline, and finds nuclei in three images that it was not trained with."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN, data, evaluation
from keras_maskrcnn.cli import main
from keras_maskrcnn.models import presets

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "images" / "nuclei"
NAMES = ("dim", "fluorescence", "tissue")


class Three(data.Dataset):
    """The images in docs/images/nuclei, with their ground truth."""

    class_names = ("nucleus",)

    def __len__(self):
        return len(NAMES)

    def read(self, position):
        name = NAMES[position]
        ids = np.asarray(Image.open(FOLDER / f"{name}_ids.png"))
        masks = ids == np.arange(1, ids.max() + 1)[:, None, None]
        labels = np.ones(len(masks), int)
        return {"image": data.read_image(FOLDER / f"{name}.png"), "image_id": name, "masks": masks, "labels": labels}


@pytest.fixture(scope="module")
def model():
    return MaskRCNN.from_preset("nuclei")


def test_it_says_what_it_is():
    assert "nuclei" in presets.shipped()
    preset = presets.read("nuclei")
    weights = preset["weights"]
    assert weights["licence"] == "CC0-1.0" and weights["bytes"] < 16e6 and weights["dtype"] == "float16"
    assert {"segm_AP", "segm_AP50", "dsb_score"} <= weights["metrics"].keys()
    card = (weights["path"].parent / "README.md").read_text()
    for word in ("Data", "Licence", "Figures", "Not for", f"{weights['metrics']['segm_AP']:.3f}"):
        assert word in card


def test_it_finds_nuclei(model):
    assert model.class_names == ["nucleus"] and not model.compiled
    scores = evaluation.coco_scores(model, Three(), max_detections=400)
    assert scores["segm_AP50"] > 0.6 and scores["segm_AP"] > 0.4
    assert evaluation.dsb_score(model, Three(), max_detections=400) > 0.4
    for position in (0, 1):
        sample = Three()[position]
        found = model.detect(sample["image"], max_detections=400)
        assert 0.7 < len(found["scores"]) / len(sample["masks"]) < 1.4


def test_the_command_line_needs_only_its_name(tmp_path):
    photos = [str(FOLDER / f"{name}.png") for name in NAMES]
    out, found = str(tmp_path / "out"), tmp_path / "found.json"
    assert main(["predict", "--model", "nuclei", *photos, "--output", out, "--json", str(found)]) in (0, None)
    assert len(json.loads(found.read_text())) > 50
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
