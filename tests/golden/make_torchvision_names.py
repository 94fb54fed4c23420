"""Writes torchvision_names.json: names and shapes of the arrays in torchvision's models, as `state_dict` gives them.

Needs torch and torchvision; the tests do not. Detectors share the ResNet-50 body, which is stored once, as
"backbone.body." and the names of `resnet50` without `fc`; so does FCN, with "backbone.".

    python tests/golden/make_torchvision_names.py
"""

import json
import pathlib

from torchvision import models
from torchvision.models import detection, segmentation

BODY = "backbone.body."
MODELS = {
    "maskrcnn_resnet50_fpn": detection.maskrcnn_resnet50_fpn,
    "maskrcnn_resnet50_fpn_v2": detection.maskrcnn_resnet50_fpn_v2,
    "fasterrcnn_resnet50_fpn": detection.fasterrcnn_resnet50_fpn,
    "fasterrcnn_resnet50_fpn_v2": detection.fasterrcnn_resnet50_fpn_v2,
    "keypointrcnn_resnet50_fpn": detection.keypointrcnn_resnet50_fpn,
}
SEGMENTATION = {"fcn_resnet50": segmentation.fcn_resnet50}
CLASSIFIERS = ("resnet18", "resnet50", "resnext50_32x4d", "mobilenet_v2")


def shapes(model):
    """Dict from names to shapes."""
    return {name: list(array.shape) for name, array in model.state_dict().items()}


def heads(model, body, prefix=BODY):
    """The shapes of what is not the body, after a check that the body is a plain ResNet."""
    found = shapes(model)
    assert {name: shape for name, shape in found.items() if name.startswith(prefix)} == body
    return {name: shape for name, shape in found.items() if name not in body}


def main():
    resnet = shapes(models.resnet50(weights=None))
    body = {BODY + name: shape for name, shape in resnet.items() if not name.startswith("fc.")}
    found = {name: shapes(models.get_model(name, weights=None)) for name in CLASSIFIERS}
    found |= {name: heads(make(weights=None, weights_backbone=None), body) for name, make in MODELS.items()}
    plain = {name.replace(BODY, "backbone."): shape for name, shape in body.items()}
    options = {"weights": None, "weights_backbone": None, "aux_loss": True}
    found |= {name: heads(make(**options), plain, "backbone.") for name, make in SEGMENTATION.items()}
    rows = (f"{json.dumps(name)}: {json.dumps(found[name], separators=(',', ':'))}" for name in found)
    pathlib.Path(__file__).with_name("torchvision_names.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
