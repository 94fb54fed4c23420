"""`save_preset` and `from_preset`: folders with configuration, description and weights."""

import json
import os
import pathlib
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, backbones
from keras_maskrcnn.heads.anchors import Anchors
from keras_maskrcnn.models import presets
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.weights import preset_folder

NAMES = ["apple", "pear", "quince"]
CARD = {
    "description": "three fruits",
    "licence": "CC0-1.0",
    "source": "drawn by the test",
    "metrics": {"segm_AP": 0.5, "of": "nothing"},
}
FILES = {"config.json", "metadata.json", "model.weights.h5"}
OPTIONS = {
    "class_names": NAMES,
    "dtype": "mixed_bfloat16",
    "anchors": {"sizes": ((10,), (20,), (40,), (60,), (90,)), "ratios": (0.5, 1.0)},
    "detection": {"score_threshold": 0.4, "max_detections": 7},
    "pixel_mean": (1.0, 2.0, 3.0),
    "frozen": ["fpn"],
}


def same_weights(one, other, rtol=0.0, leave_out=()):
    for a, b in zip(one.weights, other.weights, strict=True):
        if not any(part in a.path for part in leave_out):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=rtol / 2**14, err_msg=a.path)


@pytest.fixture(scope="module")
def model(tiny):
    """A model with options that are not the defaults, and weights that no initializer gives."""
    model = tiny(**OPTIONS)
    draws = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(draws.uniform(0.1, 1.0, weight.shape))
    model.skipped_images.assign(np.full(64, 5))
    model.compile(keras.optimizers.AdamW(1e-3))
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Its preset."""
    path = tmp_path_factory.mktemp("presets") / "fruits"
    model.save_preset(path, **CARD)
    return path


def test_three_files_of_the_names_that_keras_gives_them(folder):
    assert {path.name for path in folder.iterdir()} == FILES
    config, metadata = (json.loads((folder / name).read_text()) for name in ("config.json", "metadata.json"))
    assert config["registered_name"] == "keras_maskrcnn>MaskRCNN" and config["config"]["class_names"] == NAMES
    assert metadata["keras_version"] == keras.__version__ and metadata["description"] == CARD["description"]
    weights = metadata["weights"]
    assert {name: weights[name] for name in ("licence", "source", "metrics")} == {
        name: CARD[name] for name in ("licence", "source", "metrics")
    }
    assert weights["bytes"] == (folder / "model.weights.h5").stat().st_size and weights["classes"] == 3
    assert len(metadata["conventions"]) == 3 and "1.0, 2.0, 3.0" in metadata["conventions"]["pixels"]
    with h5py.File(folder / "model.weights.h5") as file:
        assert "optimizer" not in file


def test_the_same_model_comes_back(model, folder):
    loaded = MaskRCNN.from_preset(folder)
    assert loaded.get_config() == model.get_config() and not loaded.fpn.trainable and not loaded.compiled
    same_weights(model, loaded, leave_out=["skipped_images"])
    assert np.asarray(loaded.skipped_images).tolist() == [-1] * 64
    images = [np.random.default_rng(1).integers(0, 255, (50, 60, 3), "uint8")]
    for one, other in zip(model.detect(images, 0.0), loaded.detect(images, 0.0), strict=True):
        assert {*one} == {*other}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_keras_reads_the_folder_too(model, folder):
    same_weights(model, keras.saving.load_model(folder))


@pytest.mark.parametrize("format", ["h5", "safetensors"])
def test_half_precision_is_half_the_size_and_loads_as_float32(model, tmp_path, format):
    model.save_preset(tmp_path / "half", dtype="float16", format=format)
    loaded = MaskRCNN.from_preset(tmp_path / "half")
    same_weights(model, loaded, rtol=2**-10, leave_out=["skipped_images"])
    assert {weight.dtype for weight in loaded.backbone.weights} == {"float32"}
    stated = presets.read(tmp_path / "half")["weights"]
    assert stated["dtype"] == "float16" and stated["path"].name == preset_folder.FILES[format]
    numbers = sum(int(np.prod(weight.shape)) for weight in model.weights)
    overhead = stated["bytes"] - 2 * numbers
    assert 0 < overhead < 1000 * len(model.weights)  # the format's, per array


def test_safetensors_of_float32_are_exact(model, tmp_path):
    model.save_preset(tmp_path / "exact", format="safetensors")
    same_weights(model, MaskRCNN.from_preset(tmp_path / "exact"), leave_out=["skipped_images"])


def test_numbers_out_of_the_range_of_half_precision_stay_float32(tiny, tmp_path):
    model = tiny(class_names=NAMES)
    weight = model.box_head.classes.bias
    weight.assign(np.full(weight.shape, 1e6))
    model.save_preset(tmp_path / "large", dtype="float16")
    np.testing.assert_array_equal(np.asarray(MaskRCNN.from_preset(tmp_path / "large").box_head.classes.bias), 1e6)


def test_overrides_replace_options_and_keep_the_weights(model, folder):
    loaded = MaskRCNN.from_preset(folder, detection={"nms_iou": 0.3}, anchors=Anchors(((9,),) * 5, (1.0, 2.0)))
    assert loaded.detection.nms_iou == 0.3 and loaded.detection.max_detections == 7
    assert loaded.rpn.anchors.ratios == (1.0, 2.0) and loaded.class_names == NAMES
    same_weights(model, loaded, leave_out=["skipped_images"])


def test_another_number_of_classes_initialises_three_layers_and_prints_them(model, folder, capsys):
    loaded = MaskRCNN.from_preset(folder, num_classes=5)
    layers = "box_head.classes, box_head.deltas, mask_head.logits"
    counts = "num_classes is 3 in the file, 5 in the model"
    assert capsys.readouterr().out == f"{folder / 'model.weights.h5'}: {counts}: reinitialised {layers}\n"
    assert loaded.num_classes == 5 and loaded.class_names is None
    for name, part in loaded.parts().items():
        changed = [
            path.path
            for path, given in zip(part.weights, model.parts()[name].weights, strict=True)
            if path.shape != given.shape or not np.array_equal(np.asarray(path), np.asarray(given))
        ]
        assert len(changed) == {"box_head": 4, "mask_head": 2}.get(name, 0)
    named = MaskRCNN.from_preset(folder, num_classes=2, class_names=["a", "b"])
    assert named.class_names == ["a", "b"]


def test_weights_of_another_file_or_none(model, folder, tiny, tmp_path):
    other = tiny(**OPTIONS)
    other.save_weights(tmp_path / "other.weights.h5")
    same_weights(other, MaskRCNN.from_preset(folder, weights=tmp_path / "other.weights.h5"))
    initial = MaskRCNN.from_preset(folder, weights=False)
    assert not np.array_equal(np.asarray(initial.fpn.weights[0]), np.asarray(model.fpn.weights[0]))
    assert initial.get_config() == model.get_config()


def test_the_class_is_looked_up(folder):
    assert isinstance(InstanceModel.from_preset(folder), MaskRCNN)

    class Other(InstanceModel):
        """Another kind of model."""

    class Derived(MaskRCNN):
        """The same kind."""

    with pytest.raises(ValueError, match=r"holds a MaskRCNN, so load it with MaskRCNN.from_preset$"):
        Other.from_preset(folder)
    assert type(Derived.from_preset(folder)) is Derived
    with pytest.raises(ValueError, match="holds a MaskRCNN"):
        Other.from_preset("mask_rcnn_resnet50_fpn")


def test_a_backbone_of_plain_keras_layers(tmp_path):
    image = keras.Input((None, None, 3))
    tensor, outputs = image, {}
    for level in range(1, 6):
        tensor = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name=f"conv{level}")(tensor)
        tensor = keras.layers.BatchNormalization(name=f"norm{level}")(tensor)
        outputs[f"C{level}"] = tensor
    network = keras.Model(image, [outputs[f"C{level}"] for level in range(2, 6)], name="plain")
    backbone = backbones.from_keras(network, {f"C{level}": f"norm{level}" for level in range(2, 6)})
    model = MaskRCNN(2, backbone, fpn_channels=8, box_stage={"width": 8}, mask_stage={"width": 8, "depth": 1})
    model.save_preset(tmp_path / "plain")
    same_weights(model, MaskRCNN.from_preset(tmp_path / "plain"))


# Other processes and backends ---------------------------------------------------------------------------------------

SCRIPT = """
import sys, keras_maskrcnn
model = keras_maskrcnn.MaskRCNN.from_preset(sys.argv[1])
import keras, numpy as np
total = sum(float(np.abs(np.asarray(keras.ops.convert_to_numpy(w), "float64")).sum()) for w in model.backbone.weights)
print(keras.backend.backend(), model.class_names, f"{total:.6g}")
"""


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_new_process(model, folder, backend):
    root = pathlib.Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", SCRIPT, folder], env=environment, capture_output=True, text=True)
    total = sum(float(np.abs(np.asarray(weight, "float64")).sum()) for weight in model.backbone.weights)
    assert done.stdout == f"{backend} {NAMES} {total:.6g}\n", done.stderr[-2000:]
