"""Descriptions in exported files with values that `export` does not write: refused when the file is opened."""

import copy

import pytest

from keras_maskrcnn.data import DataError
from keras_maskrcnn.inference.exported import Exported

CONTENT = {
    "num_classes": 1,
    "class_names": ["cell"],
    "placement": {
        "image_size": [64, 96],
        "resize": {"shorter": 800, "longer": 1333, "scale": None, "tiles": None},
        "stride": 32,
        "stretch": [1, 99],
        "image_type": {"channels": 3, "dtype": "uint8"},
        "canvas": None,
    },
    "detection": {"score_threshold": 0.5, "max_detections": 10},
    "precision": "float32",
    "outputs": [
        {"name": "boxes", "kind": "boxes", "exported": "detection_boxes", "caption": "filled {:.0%}"},
        {"name": "labels", "kind": "values"},
        {"name": "scores", "kind": "values"},
    ],
    "batch": None,
    "max_detections": 10,
}
CASES = [
    (("num_classes",), "1"),
    (("num_classes",), 0),
    (("class_names",), 3),
    (("class_names",), [None]),
    (("placement", "image_size"), [2**20, 2**20]),
    (("placement", "image_size"), "64"),
    (("placement", "image_size"), [64.5, 64]),
    (("placement", "image_size"), [64]),
    (("placement", "canvas"), [32767, 32767]),  # more pixels than an image may have
    (("placement", "stride"), "32"),
    (("placement", "stride"), 0),
    (("placement", "stretch"), [99, 1]),
    (("placement", "stretch"), ["1", 2]),
    (("placement", "resize", "shorter"), 10**400),
    (("placement", "resize", "shorter"), "800"),
    (("placement", "resize", "longer"), float("inf")),
    (("placement", "resize", "scale"), 1e300),
    (("placement", "resize", "antialias"), ""),
    (("placement", "image_type", "channels"), 10**9),
    (("outputs", 0, "name"), None),
    (("outputs", 0, "kind"), []),
    (("outputs", 0, "stride"), 0),
    (("outputs", 0, "caption"), "{:99999999999}"),
    (("outputs", 0, "caption"), "{0.__class__}"),
    (("outputs", 0, "names"), 7),
    (("detection", "max_detections"), 1e30),
    (("batch",), "1"),
    (("batch",), -1),
    (("batch",), 2**31 - 1),
    (("max_detections",), 9),
    (("max_detections",), None),
    (("max_detections",), 10**400),
]


def test_the_description_is_read():
    opened = Exported("m.onnx", CONTENT)
    assert opened.placement.image_size == (64, 96) and opened.schema[0].caption == "filled {:.0%}"
    opened.check_outputs("m.onnx", ["boxes", "labels", "scores", "valid"])
    with pytest.raises(DataError, match=r"m\.onnx: .* the network has no output 'boxes'"):
        opened.check_outputs("m.onnx", ["labels", "scores", "valid"])


def test_lengths_may_be_fractions():
    content = copy.deepcopy(CONTENT)
    content["placement"]["resize"]["shorter"] = 800.5  # as `Resize` takes them
    assert Exported("m.onnx", content).placement.resize.shorter == 800.5


@pytest.mark.parametrize(("place", "value"), CASES, ids=str)
def test_other_values_are_refused(place, value):
    content = copy.deepcopy(CONTENT)
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    with pytest.raises(DataError, match=r"m\.onnx: its description \(model\.json\) is damaged"):
        Exported("m.onnx", content)


def test_outputs_without_boxes_are_refused():
    for outputs in ([], CONTENT["outputs"][:1], CONTENT["outputs"] * 2, [{"name": "masks", "kind": "box_masks"}]):
        with pytest.raises(DataError, match="is damaged"):
            Exported("m.onnx", {**CONTENT, "outputs": outputs})
