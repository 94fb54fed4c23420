"""`--model` of the recipes, and the models of the TrashCan report on images in TrashCan's layout."""

import argparse
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import YOLACT, MaskRCNN, data
from keras_maskrcnn.heads.anchors import Anchors
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.models.freezing import frozen_names
from keras_maskrcnn.models.yolact import ANCHORS
from keras_maskrcnn.training import fine_tuning, networks, recipe

SMALL = {
    "backbone": {"name": "resnet10", "norm": "group", "width": 8},
    "image_size": (64, 64),
    "fpn_channels": 16,
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,)), "ratios": (1.0, 2.0)},
    "detection": {"max_detections": 400, "nms_iou": 0.4},
    "mask_rcnn": {"box_stage": {"width": 16}, "mask_stage": {"width": 8, "depth": 1}},
}


def arguments(**given):
    return argparse.Namespace(**{"model": "mask_rcnn", "seed": 3, "precision": "float32", **given})


def test_both_models_have_the_same_backbone_canvas_and_thresholds(capsys):
    two = networks.build(arguments(), 2, **SMALL)
    assert capsys.readouterr().out == ""
    one = networks.build(arguments(model="yolact"), 2, **SMALL)
    assert (type(two), type(one)) == (MaskRCNN, YOLACT)
    for model in (two, one):
        assert (model.num_classes, model.image_size, model.seed, model.layer_dtype) == (2, (64, 64), 3, "float32")
        assert (model.detection.max_detections, model.detection.nms_iou) == (400, 0.4)
    assert one.backbone.count_params() == two.backbone.count_params()
    assert one.detection.per_class == 400, "Fast NMS keeps as many of a class as are detections"
    assert one.anchor_head.stage.width == one.prototype_head.stage.width == one.fpn_channels == 16
    assert one.anchor_head.anchors.ratios == (1.0, 2.0)
    assert "anchors of yolact: sizes 16/20/25.6, 32/40/51.2, " in capsys.readouterr().out


@pytest.mark.parametrize(("largest", "expected"), [(96, (16, 409.6)), (409.6, (16, 409.6)), (819.2, (32, 819.2))])
def test_anchors_reach_as_far_as_the_given_ones(largest, expected):
    found = networks.anchors_of_yolact({"sizes": ((8,), (16,), (32,), (64,), (largest,)), "ratios": (1.0,)})
    assert (found["sizes"][0][0], found["sizes"][-1][-1]) == expected and found["ratios"] == (1.0,)
    assert [len(level) for level in found["sizes"]] == [3] * 5


def test_the_paper_s_anchors_are_those_of_the_class():
    model = networks.build(arguments(model="yolact"), 2, **{**SMALL, "anchors": None})
    assert model.anchor_head.anchors == Anchors.of(ANCHORS)


@pytest.mark.usefixtures("narrow_presets")
@pytest.mark.parametrize("name", ["mask_rcnn_mobilenet_v2", "yolact_resnet50"])
def test_the_network_of_a_published_preset_without_its_weights(name):
    given = arguments(preset=name, weights="none", channels=None, image_dtype=None, norm="group", image_size=[96])
    model = fine_tuning.build(given, data.Shapes(1))
    assert model.num_classes == 3 and model.image_size == (96, 96) and not frozen_names(model)
    assert type(model) is (YOLACT if name.startswith("yolact") else MaskRCNN)
    assert model.backbone.norm == "group"


@pytest.fixture(scope="module")
def trashcan(tmp_path_factory):
    """`instance_version` of TrashCan 1.0 with generated images: six to train on, two to score, three classes."""
    folder = tmp_path_factory.mktemp("trashcan") / "instance_version"
    for part, count, seed in (("train", 6, 1), ("val", 2, 2)):
        drawn = data.Shapes(count, image_size=(72, 96), seed=seed)
        (folder / part).mkdir(parents=True)
        names = ("rov", "animal_fish", "trash_plastic")
        content = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": label, "name": name} for label, name in enumerate(names, start=1)]
        for number, sample in enumerate(drawn):
            name = f"vid_{number:06d}_frame0000001.jpg"
            Image.fromarray(sample["image"]).save(folder / part / name)
            content["images"].append({"id": number, "file_name": name, "height": 72, "width": 96})
            for (x1, y1, x2, y2), label in zip(sample["boxes"].tolist(), sample["labels"].tolist(), strict=True):
                content["annotations"].append({
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                })  # fmt: skip
        (folder / f"instances_{part}_trashcan.json").write_text(json.dumps(content))
    return folder


REPORT = {
    "ResNet-50 with a pyramid": ["--preset", "mask_rcnn_resnet50_fpn", "--weights", "none"],
    "MobileNetV2 without a pyramid": ["--preset", "mask_rcnn_mobilenet_v2", "--weights", "none"],
    "YOLACT": ["--model", "yolact", "--backbone", "resnet10", "--width", 8],
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.usefixtures("narrow_presets", "eager_functions")
@pytest.mark.parametrize("name", REPORT)
def test_models_of_the_trashcan_report(name, trashcan, tmp_path, run_here, monkeypatch):
    """Without an export, which other tests make."""
    models = []
    monkeypatch.setattr(InstanceModel, "export", lambda model, path: models.append(model))
    monkeypatch.setattr(recipe, "SavedModel", lambda path: models[0])
    output = tmp_path / "run"
    answer = run_here(
        "coco", "--data", trashcan, "--output", output, *REPORT[name], "--image-size", 96, "--precision", "float32",
        "--steps", 2, "--epochs", 1, "--batch-size", 2,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["train_images"], summary["val_images"], summary["steps"]) == (6, 2, 2)
    assert {"bbox_AP", "segm_AP"} <= set(summary) and set(summary["per_class"]) <= set(models[0].class_names)
    assert summary["model"] == ("YOLACT" if name == "YOLACT" else "MaskRCNN")
    assert models[0].class_names == ["rov", "animal_fish", "trash_plastic"]
    assert pathlib.Path(summary["keras_file"]).exists()
    found = models[0].detect(np.zeros((72, 96, 3), np.uint8), score_threshold=0.0)
    assert found["masks"].shape[1:] == (72, 96)


def test_a_file_of_a_mask_rcnn_is_no_yolact(tmp_path, run_here):
    folder = tmp_path / "people"
    for kind in ("PNGImages", "PedMasks"):
        (folder / kind).mkdir(parents=True)
    ids = np.zeros((40, 40), np.uint8)
    ids[5:30, 5:20] = 1
    for name in ("a", "b"):
        Image.fromarray(np.repeat(ids[..., None] * 90, 3, axis=2)).save(folder / "PNGImages" / f"{name}.png")
        Image.fromarray(ids).save(folder / "PedMasks" / f"{name}_mask.png")
    (folder / "train.txt").write_text("a")
    (folder / "val.txt").write_text("b")
    words = ["--data", folder, "--output", tmp_path / "run", "--weights", "file.pth", "--model", "yolact"]
    answer = run_here("penn_fudan", *words)
    assert answer.returncode == 2
    assert "--model yolact: the file of --weights is that of the network mask_rcnn_resnet50_fpn" in answer.stderr
