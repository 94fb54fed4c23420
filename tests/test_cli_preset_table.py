"""`info --preset-table`: the table of what each preset uses."""

import pytest

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.cli import main, preset_table
from keras_maskrcnn.models import presets


def cells(printed):
    """Cells of each row by preset and column."""
    head, rule, *rows = [line.strip("| ").split(" | ") for line in printed.splitlines()]
    assert set(rule) == {"---"} and all(len(row) == len(head) for row in rows)
    return {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in rows}


def test_it_has_a_row_for_every_preset(capsys):
    assert main(["info", "--preset-table"]) == 0
    found = cells(capsys.readouterr().out)
    assert list(found) == presets.names()
    assert found["mask_rcnn_resnet50_fpn"] == {
        "preset": "`mask_rcnn_resnet50_fpn`",
        "backbone": "resnet50",
        "neck": "fpn",
        "heads": "box, mask",
        "images: shorter / longer side": "800 / 1333",
        "anchors: sizes of each level, ratios": "32 / 64 / 128 / 256 / 512; 0.5, 1, 2",
        "regions per image (N)": "512",
        "proposals: training / test": "2000 / 1000",
        "schedule of the weights": "26 epochs of 16 images per step, 0.02, a tenth after epochs 16 and 22",
    }
    assert found["nuclei"]["backbone"] == "resnet18, width 32"
    assert found["nuclei"]["images: shorter / longer side"] == "scaled by 2"


def test_the_row_is_that_of_the_model_that_the_preset_makes():
    model = MaskRCNN.from_preset("nuclei")
    row = cells(preset_table.table())["nuclei"]
    limits = [model.rpn.proposals.limits(training)["post_nms"] for training in (True, False)]
    assert row["proposals: training / test"] == " / ".join(map(str, limits))
    assert row["regions per image (N)"] == str(model.box_head.sampling.size)
    assert row["backbone"].split(",")[0] == model.backbone.name
    levels = [[float(size) for size in level.split(", ")] for level in row[preset_table.COLUMNS[5]][:-3].split(" / ")]
    assert levels == [[pytest.approx(size, rel=5e-3) for size in level] for level in model.rpn.anchors.sizes]


def test_other_options_than_those_of_the_presets(monkeypatch):
    config = {
        "backbone": {"name": "resnet101", "norm": "group"},
        "neck": None,
        "image_size": [256, 320],
        "anchors": {"ratios": [1.0]},
        "box_sampling": {"size": 64},
        "proposals": {"post_nms": 300},
        "mask_stage": None,
        "heads": [{"class_name": "KeypointHead", "config": {}}],
    }
    monkeypatch.setattr(presets, "names", lambda: ["mine"])
    monkeypatch.setattr(presets, "read", lambda name: {"config": config, "weights": None})
    row = cells(preset_table.table())["mine"]
    assert list(row.values())[1:] == [
        "resnet101",
        "none",
        "box, keypoint",
        "256 × 320",
        "8 strides; 1",
        "64",
        "300 / 300",
        "not known",
    ]
