"""INT8 files for OpenVINO: their layers multiply in 8 bits, and their detections are near those of the model."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN, cli
from keras_maskrcnn.cli.common import load
from keras_maskrcnn.inference.export import opened

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("nncf", reason="the extra int8 is not installed")

LAYERS = ("Convolution", "FullyConnected")  # OpenVINO's names while it runs


@pytest.fixture(scope="module")
def case(make, images, tmp_path_factory):
    """A model, and its file, calibrated by the command line with three photos and a file that is not one."""
    folder = tmp_path_factory.mktemp("int8")
    backbone = {"name": "simple_cnn", "channels": (8, 16, 16, 32, 32), "kernel_size": 3}
    one_level = {"backbone": backbone, "neck": None, "anchors": {"sizes": ((16, 32, 64),)}}
    model = make(**one_level, image_size=(64, 96), box_stage={"width": 128}, detection={"max_detections": 40})
    model.save(folder / "model.keras")
    for number, image in enumerate(images[:3]):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"not an image")
    words = ["--model", str(folder / "model.keras"), "--output", str(folder / "int8.xml"), "--int8", str(folder)]
    assert cli.main(["export", *words]) == 0
    return model, folder / "int8.xml"


def test_scores_are_near_those_of_the_model(case, images):
    model, path = case
    client = load(path)
    for ours, theirs in zip(*(m.detect(images, score_threshold=0.0) for m in (model, client)), strict=True):
        np.testing.assert_allclose(theirs["scores"], ours["scores"], atol=0.05)
    assert not np.array_equal(ours["scores"], theirs["scores"])


def test_masks_do_not_depend_on_the_number_of_slots_in_use(case, images):
    client = load(case[1])
    every = client.detect(images[0], score_threshold=0.0, nms_iou=1.0)
    assert len(every["scores"]) == 40, "all slots in use"
    for count in (20, 3):
        few = client.detect(images[0], score_threshold=every["scores"][count - 1 : count + 1].mean(), nms_iou=1.0)
        assert few["masks"].shape[0] == count and few["masks"].any()
        np.testing.assert_array_equal(few["masks"], every["masks"][:count])
    assert client.detect(images[0], score_threshold=1.0)["masks"].shape[0] == 0


def test_layers_multiply_in_eight_bits(case):
    compiled = openvino.compile_model(str(case[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = collections.Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].value.startswith(LAYERS):
            kinds[info["runtimePrecision"].value.lower()] += 1
    assert kinds.pop("f32", 0) <= 2  # classes and boxes
    assert set(kinds) <= {"i8", "u8"} and kinds.total() >= 8


def test_the_file_is_small_and_says_that_it_is_quantised(case, capsys):
    model, path = case
    assert path.with_suffix(".bin").stat().st_size < 0.5 * 4 * model.count_params()
    content = json.loads(openvino.Core().read_model(path).get_rt_info("model.json").value)
    assert content["precision"] == "int8" and content["calibration_images"] == 3
    assert cli.main(["info", "--model", str(path)]) == 0
    assert "int8" in capsys.readouterr().out


def test_it_runs_in_bfloat16_too(case, images):
    found = [opened(case[1], precision=name).detect(images[0], score_threshold=0.0) for name in ("float32", "bfloat16")]
    np.testing.assert_allclose(*(one["scores"] for one in found), atol=0.05)


def test_no_images_and_other_formats_are_one_line(case, tmp_path):
    with pytest.raises(ValueError, match="calibration: for openvino only, not for onnx"):
        case[0].export(tmp_path / "m.onnx", calibration=[discs(0)])
    with pytest.raises(ValueError, match=r"m\.xml: INT8 needs calibration images"):
        case[0].export(tmp_path / "m.xml", calibration=[])


def discs(seed):
    """Nine bright discs on a dark ground."""
    rng = np.random.default_rng(seed)
    image, (y, x) = rng.normal(20, 4, (96, 96)), np.mgrid[:96, :96]
    for row in (20, 50, 78):
        for column in (18, 48, 78):
            image[(y - row) ** 2 + (x - column) ** 2 < rng.uniform(7, 10) ** 2] = 150
    return np.repeat(image.clip(0, 255).astype("uint8")[..., None], 3, axis=2)


@pytest.mark.slow
def test_a_trained_model_finds_the_same_objects(tmp_path):
    model = MaskRCNN.from_preset("nuclei")
    path = tmp_path / "nuclei.xml"
    model.export(path, image_size=(96, 96), calibration=[discs(seed) for seed in range(2, 6)])
    client = load(path)
    for seed in (0, 1):
        ours, theirs = (m.detect(discs(seed)) for m in (model, client))
        assert len(ours["scores"]) == len(theirs["scores"]) == 9
        nearest = np.abs(ours["boxes"][:, None] - theirs["boxes"][None]).max(axis=2).min(axis=1)
        assert nearest.max() < 0.5
        np.testing.assert_allclose(np.sort(theirs["scores"]), np.sort(ours["scores"]), atol=0.01)
